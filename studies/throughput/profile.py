"""Where a training step spends its time, by part of the network and by operator."""
import statistics
import time

import torch
import torch.nn as nn

from inceptionnext_seg.provenance import synchronize

from .candidates import candidate_config, candidate_label
from .step import Step


def profile(name, cfg_options, setting, layout, steps=3):
    """Median seconds by part, and seconds by operator of one step, the twelve longest and the rest."""
    step = Step(candidate_config(name, cfg_options), setting, layout)
    step()
    measured = [StepClock(step).measure() for _ in range(steps)]
    by_part = {part: statistics.median(m[part] for m in measured) for part in measured[0]}
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_cuda = torch.device(setting.device).type == 'cuda'
    if on_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        synchronize(setting.device)
    attribute = 'self_device_time_total' if on_cuda else 'self_cpu_time_total'
    totals = sorted(((getattr(e, attribute) / 1e6, e.key) for e in profiler.key_averages()), reverse=True)
    by_operator = {key: seconds for seconds, key in totals[:12]}
    by_operator['other'] = sum(seconds for seconds, _ in totals[12:])
    return dict(name=name, label=candidate_label(name), layout=layout, dtype=setting.dtype, by_part=by_part,
                by_operator=by_operator)


class StepClock:
    """Seconds of one training step by part: forward of backbone and heads, loss, their backwards, optimizer."""

    def __init__(self, step, clock=time.perf_counter):
        self.step, self.clock = step, clock
        self.parts = {}
        self.device = step.setting.device

    def mark(self, part):
        synchronize(self.device)
        now = self.clock()
        self.parts[part] = self.parts.get(part, 0.) + now - self.last
        self.last = now

    def measure(self):
        """dict part -> seconds, of one step."""
        step, model = self.step, self.step.model
        images, samples = next(step.batches)
        synchronize(self.device)
        self.last = self.clock()
        with step.autocast():
            features = model.backbone(images)
            self.mark('backbone forward')
            logits = [head(features) for head in heads(model)]
            self.mark('head forward')
            loss = sum(
                value for head, output in zip(heads(model), logits, strict=True)
                for name, value in head.loss_by_feat(output, samples).items() if 'loss' in name)
            self.mark('loss forward')
        # A tensor's hook runs when the node that made it is about to, and autograd takes the latest nodes first: where
        # the first of the logits, or of the features, is reached, all of the loss, or of the heads, is done.
        hooks = [
            torch.autograd.graph.register_multi_grad_hook(
                tensors, lambda grad, part=part: self.mark(part), mode='any')
            for tensors, part in ((logits, 'loss backward'), (features, 'head backward'))]
        loss.backward()
        self.mark('backbone backward')
        for hook in hooks:
            hook.remove()
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)
        self.mark('optimizer')
        return self.parts


def heads(model):
    found = [model.decode_head]
    auxiliary = getattr(model, 'auxiliary_head', None)
    return found + (list(auxiliary) if isinstance(auxiliary, nn.ModuleList) else [auxiliary] if auxiliary else [])
