"""Sections on speed: throughput of the runs themselves, and that of a benchmark with the same configs."""
import statistics
from pathlib import Path

from ..throughput.summary import summarize
from ..timing import describe_ratio
from .collecting import all_runs
from .differences import ran_together
from .words import FEW_SEEDS, machine_text, number, values_of, versions_text

PHASES = dict(train='training', val='validation', test='test')


def throughput_of(run, phase):
    throughput = run['metrics'].get(f'{phase}_throughput') or {}
    return throughput if throughput.get('images_per_s') else None


def throughput_section(candidates):
    """Images/s and memory of the runs themselves; of runs that shared a machine, memory alone."""
    reference, runs = candidates[0], all_runs(candidates)
    together = sum(ran_together(runs))
    rows = []
    for phase, title in PHASES.items():
        measured = [[t for run in c['runs'] if (t := throughput_of(run, phase))] for c in candidates]
        medians = [statistics.median(t['images_per_s'] for t in ts) if ts else None for ts in measured]
        for candidate, ts, median in zip(candidates, measured, medians, strict=True):
            if ts:
                speeds = [] if together else [
                    ', '.join(number(t['images_per_s']) for t in ts), number(median),
                    number(median / medians[0] if medians[0] else None)]
                rows.append([candidate['name'], title, *speeds, number(max(t['peak_memory_MiB'] for t in ts), 0)])
    if not rows:
        return
    if together:
        yield 'heading', 'Memory'
        yield 'table', (['candidate', 'phase', 'peak memory (MiB)'], rows)
        yield 'text', ('The highest peak memory of the runs (of the GPU, or of the process). Their images/s are left '
                       f'out: {together} of the {len(runs)} runs ran at the same time as another of them, on the same '
                       'kind of machine, and most likely shared it. tools/benchmark.py measures throughput.')
        return
    yield 'heading', 'Throughput and memory'
    yield 'table', (['candidate', 'phase', 'images/s of each run', 'median', f'ratio to {reference["name"]}',
                     'peak memory (MiB)'], rows)
    yield 'text', (
        'Images per second of the runs themselves, without their warm-up, and the highest peak memory (of the GPU, or '
        'of the process). **These are figures of training runs, not of a benchmark, and only indicative**: '
        'tools/benchmark.py measures candidates against each other and gives intervals. What else the machine did is '
        'not recorded.')
    machines = {tuple(run['metrics']['environment'].get(k) for k in ('device', 'device_name', 'threads'))
                for run in runs}
    if len(machines) > 1:
        yield 'text', '**The runs were not made on the same device with the same number of threads**; ratios mislead.'


def benchmarks_section(benchmarks):
    """Images/s from the raw samples of tools/benchmark.py."""
    for benchmark in benchmarks:
        yield 'heading', 'Throughput in a benchmark'
        yield 'text', ('Medians with 95 % bootstrap intervals over the rounds of one process, in which the candidates '
                       'took turns; the intervals do not contain what changes from process to process. Each in the '
                       'faster of the layouts measured. Settled: both halves of the samples agree.')
        yield 'code', [benchmark['environment']['command']]
        yield 'text', f'{machine_text(benchmark["environment"])}; {versions_text(benchmark["environment"])}.'
        rows = []
        for run in benchmark['runs']:
            setting = run['setting']
            for row in summarize(run):
                low, high = row['images_per_s_interval']
                rows.append([
                    row['label'], f'{setting["part"]} {setting["mode"]} {setting["dtype"]} {row["layout"]}',
                    f'{setting["batch_size"]} × {setting["size"]}²',
                    f'{row["images_per_s"]:.3g} ({low:.3g}–{high:.3g})',
                    '1' if row['speedup'] is None else describe_ratio(row['speedup']),
                    'yes' if row['settled'] else '**no**'])
        yield 'table', (['candidate', 'measured', 'batch', 'images/s', 'ratio to the first', 'settled'], rows)


def speed_points(content):
    """Points of the scatter and its axis: from a benchmark of all candidates' configs, else from the runs.

    None where a candidate has too few runs to be ranked, or the only images/s are of runs that shared a machine.
    """
    candidates = content['candidates']
    if min(len(candidate['runs']) for candidate in candidates) < FEW_SEEDS:
        return None, None
    configs = [Path(candidate['runs'][0]['metrics']['config'] or '').stem for candidate in candidates]
    for benchmark in content['benchmarks']:
        for run in benchmark['runs']:
            speeds = {row['label']: row['images_per_s'] for row in summarize(run)}
            if run['setting']['part'] == 'segmentor' and all(config in speeds for config in configs):
                points = [(candidate['name'], [(speeds[config], miou) for miou in values_of(candidate, 'mIoU')])
                          for candidate, config in zip(candidates, configs, strict=True)]
                return points, f'images/s in the benchmark ({run["setting"]["mode"]}, {run["setting"]["dtype"]})'
    for phase, title in PHASES.items() if not any(ran_together(all_runs(candidates))) else ():
        if all(throughput_of(run, phase) for run in all_runs(candidates)):
            points = [(c['name'], [(throughput_of(run, phase)['images_per_s'], run['metrics']['mIoU'])
                                   for run in c['runs']]) for c in candidates]
            return points, f'images/s in {title}, of the runs themselves'
    return None, None
