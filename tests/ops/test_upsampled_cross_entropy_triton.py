"""The Triton form of the upsampled loss and of class indices: its function, its budgets, its code for GPUs not here.

What is computed is tried in Triton's interpreter, in a process of its own; ``INCEPTIONNEXT_SEG_FUZZ=1`` adds random
sizes there, and more classes, dtypes and GPUs to what is compiled.
"""
import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import upsampled_loss_checks as checks
from mmseg.models.losses import CrossEntropyLoss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inceptionnext_seg.ops import _triton, dispatch, label_check, upsampled_cross_entropy
from inceptionnext_seg.ops.host_copy import HostCopy
from inceptionnext_seg.segmentation.loss import losses_from_sums

FUZZ = os.environ.get('INCEPTIONNEXT_SEG_FUZZ') == '1'
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
# T's heads on 16 images of 512×512, ADE20K's classes: the decode head at stride 4, the auxiliary head at stride 16.
HEADS = dict(decode=(16, 150, 128, 128), auxiliary=(16, 150, 32, 32))
SIZE = 512, 512


@pytest.fixture(autouse=True)
def triton():
    pytest.importorskip('triton', reason='triton is not installed')


# In Triton's interpreter


def interpret(root, *arguments):
    environment = dict(os.environ, TRITON_INTERPRET='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
                       PYTHONPATH=os.pathsep.join((str(root), os.environ.get('PYTHONPATH', ''))))
    run = subprocess.run([sys.executable, str(root / 'tests' / 'upsampled_loss_checks.py'), *arguments],
                         env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.logits_match
def test_loss_gradient_sums_and_class_indices_are_those_of_torch_in_float64(root):
    interpret(root)


@pytest.mark.slow
@pytest.mark.skipif(not FUZZ, reason='INCEPTIONNEXT_SEG_FUZZ=1 tries random sizes')
def test_they_are_at_random_sizes(root):
    interpret(root, 'random', '1', '40')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_they_are_on_cuda():
    device = torch.device('cuda')
    checks.check_all(device, [*checks.CASES, *checks.REAL], checks.ARGMAX_CASES)
    for check in (checks.check_wrong_labels, checks.check_gradients, checks.check_limits,
                  checks.check_more_than_two_to_the_31):
        check(device)


# Labels that are no class are learnt of later


class Arriving:
    """Stands for a CUDA event, which passes when it is waited for."""
    passed = False

    def query(self):
        return self.passed

    def synchronize(self):
        self.passed = True


def test_a_wrong_label_is_an_error_as_soon_as_it_has_arrived_and_once(monkeypatch):
    monkeypatch.setattr(label_check, 'pending', [])
    event = Arriving()
    monkeypatch.setattr(label_check, 'copy_to_host', lambda number: HostCopy(number, event))
    label_check.watch(torch.tensor(label_check.NONE_WRONG), 5, 255)
    label_check.watch(torch.tensor(7), 5, 255)
    label_check.check()     # which does not wait
    assert not event.passed and len(label_check.pending) == 2
    event.passed = True
    with pytest.raises(checks.UserError, match='no class: 7; expected 0 to 4, or 255'):
        label_check.check()
    label_check.check(wait=True)


# Budgets


VIEWS = {'view', 't', 'transpose', 'permute', 'expand', 'slice', 'select', 'unsqueeze', 'squeeze', 'as_strided',
         'detach', 'alias', '_unsafe_view', 'unbind', 'lift_fresh', '_reshape_alias', 'view_as'}


class Count(TorchDispatchMode):
    """Operators on a device, copies to it from the host and bytes moved; every tensor of an operator counts once.

    Bytes are what an operator's inputs and outputs have: what is read twice comes from a cache. Operators that only
    make a view or an empty tensor are none.
    """

    def __init__(self):
        super().__init__()
        self.operators, self.copies, self.bytes = [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if name not in VIEWS and not name.startswith('empty') and name != 'new_empty' and any(
                x.is_meta for x in inputs + outputs):
            self.operators.append(name)
            self.copies += any(x.numel() and not x.is_meta and x.dim() for x in inputs)
            self.add(inputs + outputs)
        return result

    def add(self, tensors):
        self.bytes += sum(x.nbytes for x in {id(x): x for x in tensors if x.is_meta}.values())


class Sums(torch.autograd.Function):
    """The operator of the loss where torch would take its shapes alone: the code that launches runs."""

    @staticmethod
    def forward(ctx, *inputs):
        output = upsampled_cross_entropy.triton_sums(*inputs)
        upsampled_cross_entropy.save_for_triton_gradient(ctx, inputs, output)
        ctx.mark_non_differentiable(*output[1:])
        return tuple(output)

    @staticmethod
    def backward(ctx, *grads):
        return upsampled_cross_entropy.triton_sums_gradient(ctx, grads)


@pytest.fixture
def on_meta(monkeypatch):
    """The Triton form runs on the meta device, where launches are recorded; tables were made by a step before."""
    monkeypatch.setattr(dispatch, 'is_hollow', lambda x: False)
    monkeypatch.setattr(_triton, 'why_not', lambda device: None)
    for operator, function in (('triton_sums', Sums.apply), ('upsampled_argmax', upsampled_cross_entropy.class_indices),
                               ('triton_gradient', upsampled_cross_entropy.triton_gradient)):
        monkeypatch.setattr(upsampled_cross_entropy, f'{operator}_operator', function)


def counted(step):
    """Runs ``step`` twice, as in training, and counts the second time; returns the count and its launches."""
    with _triton.recording():
        step()
    with _triton.recording() as launches, Count() as count:
        step()
    for launch in launches:
        count.operators.append(launch.kernel.__name__)
        count.add([x for x in launch.args if isinstance(x, torch.Tensor)])
    return count, launches


def maps(head, dtype=FP16, layout=torch.channels_last):
    batch, classes, *low = HEADS[head]
    logits = torch.empty(batch, classes, *low, dtype=dtype, device='meta').contiguous(memory_format=layout)
    return logits.requires_grad_(), torch.empty(batch, *SIZE, dtype=torch.int64, device='meta')


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize('head', HEADS)
def test_the_loss_of_a_head_has_few_operators_copies_nothing_and_moves_little_more_than_it_must(head, layout, on_meta):
    """All that ``loss_by_feat`` and the backward pass do with logits and labels, as on a GPU.

    The least is that each pass reads its inputs once and writes its result once: twice the logits, twice the labels,
    once the gradient. To these a contiguous map adds a copy to channels_last in each pass, and one of the gradient.
    """
    logits, labels = maps(head, layout=layout)
    decode_head = SimpleNamespace(loss_decode=CrossEntropyLoss(), ignore_index=255, align_corners=False)

    def step():
        logits.grad = None
        losses = losses_from_sums(decode_head, logits, labels, 'triton')
        losses['loss_ce'].backward()
    count, launches = counted(step)
    assert [launch.kernel.__name__ for launch in launches] == ['loss_kernel', 'sum_kernel', 'gradient_kernel']
    assert logits.grad.stride() == logits.stride() and logits.grad.dtype == FP16
    # On a GPU there is one operator more: the copy of the largest wrong label to the host, for which nothing waits.
    assert len(count.operators) + 1 <= 20, count.operators
    assert count.copies == 0
    copies = 6 * logits.nbytes if layout == torch.contiguous_format else 0
    assert count.bytes <= 1.3 * (3 * logits.nbytes + 2 * labels.nbytes) + copies


def test_class_indices_are_one_operator_that_reads_the_logits_and_writes_the_indices(on_meta):
    logits = maps('decode')[0].detach()

    def predict():
        return upsampled_cross_entropy.upsampled_argmax(
            logits, SIZE, padding=(0, 12, 0, 4), flip='horizontal', ori_shape=(683, 512), impl='triton')
    count, _ = counted(predict)
    with _triton.recording():
        least = logits.nbytes + predict().nbytes
    assert count.operators == ['argmax_kernel'] and count.copies == 0 and count.bytes <= 1.01 * least


def test_class_weights_that_are_numbers_are_copied_to_a_device_once():
    device = torch.device('cpu')
    first = upsampled_cross_entropy.weight_of_numbers((1., 2.), FP32, device)
    assert upsampled_cross_entropy.weight_of_numbers((1., 2.), FP32, device) is first
    assert first.tolist() == [1, 2] and not first.is_inference()


# Code for GPUs that are not here


def compiled(shape, dtype, capability, weighted=False, label_smoothing=0.):
    from triton_ahead import compile_ahead
    logits = torch.empty(shape, dtype=dtype, device='meta').contiguous(memory_format=torch.channels_last)
    labels = torch.empty(shape[0], *SIZE, dtype=torch.int64, device='meta')
    weight = torch.empty(shape[1], device='meta') if weighted else None
    with _triton.recording() as launches:
        upsampled_cross_entropy.upsampled_cross_entropy(
            logits.requires_grad_(), labels, weight, label_smoothing=label_smoothing, impl='triton').loss.backward()
        upsampled_cross_entropy.upsampled_argmax(logits.detach(), SIZE, impl='triton')
    return {report.name: report for report in (compile_ahead(launch, capability) for launch in launches)}


SOME = [(FP16, 80), (BF16, 90), (FP32, 80)]
ALL = [(dtype, capability) for dtype in (FP16, BF16, FP32) for capability in (80, 90)]


@pytest.mark.slow
@pytest.mark.parametrize('dtype, capability', ALL if FUZZ else SOME, ids=str)
def test_the_kernels_compile_without_spills_in_few_registers_with_loads_as_wide_as_150_classes_allow(
        dtype, capability, on_meta):
    """A pixel's 150 classes begin at a multiple of two elements: a thread loads two at once, and a warp 64 in a row."""
    for name, report in compiled(HEADS['decode'], dtype, capability).items():
        assert report.spills == 0 and report.registers <= 128, report
        if name == 'sum_kernel':
            assert set(report.loads) == {128}, report
            continue
        assert report.warps == 1 and report.barriers == 0 and report.shared == 0, report
        assert report.loads[2 * 8 * dtype.itemsize] >= 4, report
        if dtype != FP32:   # one at a time are those of the last 22 classes
            assert report.loads[16] <= 6, report


@pytest.mark.slow
@pytest.mark.skipif(not FUZZ, reason='INCEPTIONNEXT_SEG_FUZZ=1 compiles for more numbers of classes')
@pytest.mark.parametrize('capability', [80, 90])
def test_other_numbers_of_classes_compile_without_spills_too(capability, on_meta):
    for classes, dtype in itertools.product((2, 11, 19, 32, 96, 150, 171, 256, 300, 847, 1500), (FP16, FP32)):
        for report in compiled((16, classes, 32, 32), dtype, capability, True, 0.1).values():
            assert report.spills == 0 and report.registers <= 128, report
            if classes == 256 and report.name != 'sum_kernel':  # which all begin at 16 bytes
                assert report.loads[64] + report.loads[128] >= 4, report
