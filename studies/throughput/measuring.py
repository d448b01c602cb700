"""Candidates measured against each other, interleaved in one process, and against the machine's limits."""
import time

from inceptionnext_seg.engine.explaining import ONE_VALUE_A_CHANNEL
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import synchronize

from ..timing import DTYPES, interleave, machine_peaks
from .candidates import candidate_config, candidate_label, layouts_of
from .limits import count_products
from .memory import is_out_of_memory, peak_memory
from .setting import Setting
from .step import candidate_step, cold_images
from .summary import best_layouts


def run(names, setting, layouts=('nchw', 'nhwc'), cfg_options=None, rounds=10, warmup=2, memory=True,
        clock=time.perf_counter, progress=None, report=print):
    """Measure candidates against each other, interleaved in this process, and against the machine's limits.

    Args:
        names (Sequence[str]): Config paths, 'stock', or 'as-shipped'. Ratios are to the first.
        layouts (Sequence[str]): Each candidate runs in all of them; :func:`best_layouts` picks.

    Returns:
        dict: ``setting``, ``peaks``, and ``results``, a list of dicts with name, layout, raw ``seconds``, ``settled``,
        ``macs``, ``nbytes``, ``peak_memory`` of the process and ``memory_before``, in bytes.

    Raises:
        UserError: One image is too large for the device's memory.
    """
    setting, steps = fit_batch(names, cfg_options, setting, layouts, report)
    dtype = DTYPES[setting.dtype]
    peaks = machine_peaks(setting.device, dtype, clock=clock)
    samples = interleave(
        steps, rounds=rounds, warmup=warmup, synchronize=lambda: synchronize(setting.device), clock=clock,
        progress=progress)
    results = []
    for (name, layout), sample in samples.items():
        macs, nbytes = count_products(steps[name, layout])
        results.append(dict(
            name=name, label=candidate_label(name), layout=layout, seconds=sample.seconds, settled=sample.settled,
            warmup_rounds=sample.warmup_rounds, macs=macs, nbytes=nbytes,
            peak_memory=None, memory_before=0))
    # In the better layout only: a process takes its time.
    for result in best_layouts(results) if memory else ():
        name, layout = result['name'], result['layout']
        result['peak_memory'], result['memory_before'] = peak_memory(name, cfg_options, setting, layout) or (None, 0)
    return dict(setting=vars(setting), peaks=peaks, results=results)


def fit_batch(names, cfg_options, setting, layouts, report):
    """One trial step of every candidate; out of memory halves the batch of all, so that they stay comparable."""
    while True:
        try:
            keys = [(name, layout) for name in names
                    for layout in layouts_of(candidate_config(name, cfg_options), setting, layouts)]
            images = {layout: cold_images(setting, layout) for _, layout in keys}
            steps = {(name, layout): candidate_step(name, cfg_options, setting, layout, images[layout])
                     for name, layout in keys}
            for step in steps.values():
                step()
            return setting, steps
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if setting.batch_size == 1:
                size = '×'.join(map(str, setting.image_size))
                raise UserError(f'out of memory with one image of {size} on {setting.device}. '
                                'Next: a smaller --size, --dtype bf16, or --part backbone.') from error
            smaller = Setting(**{**vars(setting), 'batch_size': setting.batch_size // 2})
            report(f'out of memory at batch {setting.batch_size}: every candidate goes on with {smaller.batch_size}')
            setting = smaller
        except ValueError as error:
            if not str(error).startswith(ONE_VALUE_A_CHANNEL):
                raise
            raise UserError(
                f"one image of {'×'.join(map(str, setting.image_size))} alone cannot train: a BatchNorm has one value "
                "a channel in the head's 1×1 pooled map. Next: --batch-size 2, or --mode infer.") from error
