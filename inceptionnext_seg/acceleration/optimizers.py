"""An optimizer's state in the layout of its parameters, which ``accelerate`` changes."""
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

watched = []


def watch_fused_optimizers():
    """From now on, lay the state of fused optimizers out as their parameters before they use it.

    A fused step goes through a parameter, its gradient and its state in the order of memory and does not compare their
    strides: with a parameter in channels_last and a state from before, or from a checkpoint of a model that was not
    accelerated, it pairs the wrong elements and says nothing (seen with torch 2.14 on a CPU). Other steps go by index.
    """
    if not watched:
        watched.append(register_optimizer_step_pre_hook(lay_state_out))


@torch.no_grad()
def lay_state_out(optimizer, args, kwargs):
    """Before a step: give each tensor of a parameter's shape in its state the parameter's strides."""
    for group in optimizer.param_groups:
        if not group.get('fused'):
            continue
        for parameter in group['params']:
            state = optimizer.state.get(parameter) or {}
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape and (
                        value.stride() != parameter.stride()):
                    state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
