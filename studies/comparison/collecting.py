"""From runs to the one dict that a report is made from, and the JSON beside it holds."""
import json

import numpy as np

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object
from inceptionnext_seg.provenance import environment

from .differences import paired_bootstrap
from .reading import find_metrics, is_multi_scale, public_command, read_benchmark, read_run

FORMAT = 'inceptionnext_seg comparison 1'
# The JSON is for a repository: the pixel counts of every image are left out where they would make it larger.
LARGEST_JSON = 200_000


def collect(candidates, title=None, benchmarks=()):
    """Read everything that a report needs.

    Args:
        candidates (dict[str, list]): Paths of each candidate's runs, one a seed. The first is the reference.
        benchmarks (Sequence): Result files of ``tools/benchmark.py``.

    Returns:
        dict: What the JSON beside a report holds.

    Raises:
        UserError: A run cannot be read, two of a candidate have one seed, or the candidates were not evaluated on the
            same classes, images and labels, at the same scales.
    """
    read = []
    for name, runs in candidates.items():
        check_each_once(name, runs)
        read.append(dict(name=name, runs=[read_run(run) for run in runs]))
        check_seeds(name, runs, [run['metrics'] for run in read[-1]['runs']])
    runs = all_runs(read)
    check_same_classes(runs)
    check_same_scales(runs)
    paired, images = None, None
    if all(run['counts'] for run in runs):
        check_same_images(runs)
        images = runs[0]['counts']['images']
        paired = [paired_bootstrap([run['counts'] for run in other['runs']], [run['counts'] for run in read[0]['runs']])
                  for other in read[1:]]
    content = dict(
        format=FORMAT, title=title or ' and '.join(candidates), environment=environment('cpu'), candidates=read,
        paired=paired, images=images, benchmarks=[read_benchmark(path) for path in benchmarks])
    content['environment']['command'] = public_command(content['environment']['command'])
    for run in runs:
        if run['counts']:
            run['counts'] = {name: run['counts'][name].tolist() for name in ('intersect', 'union')}
    if len(json.dumps(content)) > LARGEST_JSON:
        for run in runs:
            run['counts'] = None
        content['images'] = None
    # As it comes back from the file, where for instance a tuple is a list.
    return json.loads(json.dumps(content))


def read_collected(path):
    """What :func:`collect` returned, from the JSON beside a report. Raises UserError where it is another file."""
    again = 'make it with tools/compare.py NAME=RUN NAME=RUN --out REPORT.md'
    content = read_object(path, 'the JSON of a report of tools/compare.py', again)
    if content.get('format') != FORMAT:
        raise UserError(f'{path}: format is {content.get("format")!r}; expected {FORMAT!r}. Next: {again}.')
    return content


def all_runs(candidates):
    return [run for candidate in candidates for run in candidate['runs']]


def check_each_once(name, runs):
    files = [find_metrics(run).resolve() for run in runs]
    for run, file in zip(runs, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f'{name} names run {run} twice; expected each run once, since the number of runs decides '
                            'what can be shown. Next: leave one out.')


def check_seeds(name, runs, metrics):
    """Whether no two runs at the same scales have one seed: evaluations of one training are no second seed."""
    known = {}
    for run, found in zip(runs, metrics, strict=True):
        key = found.get('seed'), is_multi_scale(found)
        if key[0] is not None and key in known:
            raise UserError(f'{name} names two results of seed {key[0]}, {known[key]} and {run}; expected one of '
                            'each seed, since the number of runs decides what can be shown. Next: leave one out.')
        known[key] = run


def check_same_scales(runs):
    kinds = {is_multi_scale(run['metrics']): run['path'] for run in runs}
    if len(kinds) > 1:
        raise UserError(f'{kinds[True]} is of a multi-scale test (--tta) and {kinds[False]} of a single scale; '
                        'expected: all of one kind, since scales alone raise the mIoU. Next: evaluate both with '
                        'tools/test.py and --tta, or both without.')


def check_same_classes(runs):
    first = runs[0]
    for run in runs[1:]:
        expected, found = list(first['metrics']['per_class']), list(run['metrics']['per_class'])
        if expected != found:
            only = [f'only {side["path"]} has {", ".join(map(repr, names[:5]))}{" and more" * (len(names) > 5)}'
                    for side, names in ((first, [n for n in expected if n not in found]),
                                        (run, [n for n in found if n not in expected])) if names]
            raise UserError(f'{run["path"]} was evaluated on {len(found)} classes, {first["path"]} on {len(expected)}: '
                            f'{"; ".join(only) or "in another order"}. Expected the same data set for all. '
                            'Next: evaluate the checkpoints on one data set with tools/test.py.')


def check_same_images(runs):
    first = runs[0]
    for run in runs[1:]:
        expected, found = first['counts'], run['counts']
        if expected['images'] != found['images']:
            what = f'{len(found["images"])} images, {first["path"]} on {len(expected["images"])}, not the same ones'
        elif not np.array_equal(expected['label'], found['label']):
            image = found['images'][int(np.flatnonzero((expected['label'] != found['label']).any(1))[0])]
            what = f'other labels than {first["path"]}, in {image} first'
        else:
            continue
        raise UserError(f'{run["path"]} was evaluated on {what}; a paired comparison wants the same images and labels '
                        'in the same order. Next: evaluate the checkpoints on one data set with tools/test.py.')
