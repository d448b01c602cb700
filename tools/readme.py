"""Write every table and picture of README.md and docs/ from the files in docs/results: python tools/readme.py

The report beside each result file and its pictures, the marked blocks of the documents, docs/claims.md and, from the
configs, docs/model_zoo.md. A picture is drawn anew where its data or its code have changed since. With --run WORK_DIR
the excerpt of a training run is taken from its newest log first. What measures is listed by ``python -m studies``.
"""
import argparse
import json
import re
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_text
from studies import (
    backbone_limit,
    fuzzing,
    long_run,
    operator_choices,
    own_parts,
    own_recipe,
    window_memory,
    window_speed,
)
from studies import other_segmentors as others
from studies.claims.page import page as claims_page
from studies.gpu import report as gpu_report
from studies.gpu import stream as gpu_stream
from studies.inference import report as inference_report
from studies.model_zoo import write_catalogue
from studies.operators.blocks import DOCUMENT as OPERATORS_SHOWN
from studies.operators.blocks import document_blocks
from studies.operators.summary import Result as Operators
from studies.paper import MMSEGMENTATION_CONVNEXT, UPERNET
from studies.published.files import write_reports
from studies.published.machine import PUBLISHED, machine_line
from studies.reliability.cases import table as reliability_table
from studies.replacement_report import totals_table
from studies.speed.goals import goals_table
from studies.speed.pictures import THREADS, picture_paths
from studies.speed.report import (
    compiled_table,
    goals,
    growth_table,
    layouts_text,
    limits_table,
    mixers_table,
    parts_table,
    processes_in_short,
    processes_text,
    threads_table,
    turns_text,
    what,
)
from studies.speed.summary import Result
from studies.timing import Interval, describe_ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results'
EXCERPT = RESULTS / 'mini_run.txt'
WALK = RESULTS / 'own_images.txt'
OTHERS = RESULTS / 'accelerate_others.json'
# Of the machine whose figures the documents show.
SPEED, OPERATORS, INFERENCE, WINDOW_MEMORY, WINDOW_SPEED, BACKBONE_LIMIT = (
    RESULTS / PUBLISHED / f'{name}.json'
    for name in ('speed', 'operators', 'inference', 'window_memory', 'window_speed', 'backbone_limit'))
RELIABILITY = RESULTS / 'reliability'
CLAIMS = ROOT / 'docs/claims.md'


def excerpt_of(work_dir):
    """The last training line, the last table of classes and the summary of the newest log below ``work_dir``."""
    logs = sorted(Path(work_dir).glob('*/*.log'))
    if not logs:
        raise UserError(f'--run {work_dir}: no log below it. Expected: the work_dir of a run of tools/train.py.')
    text = re.sub(r'^(?:\d{4}/)?\d\d/\d\d [\d:]+ - mmengine - INFO - ', '', logs[-1].read_text(), flags=re.MULTILINE)
    training = re.findall(r'^Iter\(train\).*$', text, flags=re.MULTILINE)[-1]
    table = re.findall(r'^\+-.*?\n\n?(?=\S+\(|[A-Z])', text, flags=re.MULTILINE | re.DOTALL)[-1].rstrip()
    evaluation = re.findall(r'^Iter\(val\) .*aAcc.*$', text, flags=re.MULTILINE)[-1]
    summary = re.findall(r'^Summary: .*$', text, flags=re.MULTILINE)[-1]
    return '\n'.join([training, table, evaluation, summary]) + '\n'


def mini_run():
    """The last line of the excerpt, the run's summary, broken at its commas."""
    if not EXCERPT.is_file():
        return ''
    summary = EXCERPT.read_text().rstrip().splitlines()[-1]
    parts = summary.partition(', peak memory')
    return f'```\n{parts[0]},\n{(parts[1] + parts[2]).lstrip(", ")}\n```'.replace(', metrics', ',\nmetrics')


def own_images_walk():
    """How long each step of docs/own_images.md took, and where."""
    if not WALK.is_file():
        return 'Not measured yet.'
    *steps, where = WALK.read_text().splitlines()
    rows = [[what, seconds] for seconds, what in (line.split('\t') for line in steps)]
    return f'{markdown_table(["step", "seconds"], rows)}\n\n{where}'


def paper():
    rows = []
    for row in UPERNET:
        stock = MMSEGMENTATION_CONVNEXT[row.arch] if row.family == 'ConvNeXt' else None
        rows.append([f'{row.family}-{row.arch[0].upper()}', f'{row.parameters} M', f'{row.macs} G', row.miou,
                     f'{stock[0]} / {stock[1]}' if stock else '–', 'not trained'])
    return markdown_table(
        ['backbone', 'parameters', 'MACs', 'paper, mIoU', "MMSegmentation's checkpoint, single scale / multi-scale",
         'here'], rows)


# Speed: docs/results/MACHINE/speed.json of each machine.


def speed_result(path=SPEED):
    return Result(json.loads(path.read_text()))


SHOWN = 'stock', 'smp-inceptionnext', 'convnext', 'inceptionnext'


def speed():
    """Stock, segmentation_models.pytorch and both networks of ours; of how many processes."""
    result, rows = speed_result(), []
    for cell in result.cells.values():
        if cell.suite != 'main' or result.images_per_second(cell.name, 'inceptionnext') is None:
            continue
        best = result.best_dtype_cell(cell.name)
        faster = '–' if best in (None, cell.name) else str(
            result.speedup(cell.name, 'inceptionnext', baseline_cell=best))
        ours = [speedup_text(result, cell.name, baseline) for baseline in ('stock', 'smp-inceptionnext', 'convnext')]
        rows.append([what(cell), *(number(result, cell.name, name) for name in SHOWN), ours[0], faster, *ours[1:]])
    return markdown_table(
        ['images/s', 'stock ConvNeXt-T', 'smp InceptionNeXt-T', 'our ConvNeXt-T', 'our InceptionNeXt-T', '× stock',
         '× stock in its faster dtype', '× smp', '× our ConvNeXt-T'], rows) + '\n\n' + ' '.join(filter(None, [
             processes_in_short(result, 'main', SHOWN), layouts_text(result, 'main', ('stock', 'smp-inceptionnext')),
             turns_text(result, 'main')]))


def number(result, cell, name):
    found = result.images_per_second(cell, name)
    return '–' if found is None else f'{found.value:.3g}'


def speedup_text(result, cell, baseline):
    found = result.speedup(cell, 'inceptionnext', baseline)
    return '–' if found is None else str(found)


def speed_machines():
    """A row a machine: how many times as fast as stock the accelerated InceptionNeXt-T is."""
    rows = []
    for path in sorted(RESULTS.glob('*/speed.json'), key=lambda path: (path != SPEED, path)):
        result = speed_result(path)
        cells = [cell for cell in result.cells.values() if cell.suite == 'main']
        rows.append([f'[{machine_line(result.content, THREADS)}](results/{path.parent.name}/speed.md)',
                     *(speedup_text(result, cell.name, 'stock') for cell in cells)])
    return markdown_table(['InceptionNeXt-T UperNet, × stock of the same dtype', *map(what, cells)], rows)


def of_speed(table, suite=None, alt=None):
    """A block: a table of the study of speed, with the picture of the same question above it.

    Args:
        suite (str | None): What the table is of; where it was not measured, the block says so.
        alt (str | None): The picture's text.
    """
    def block():
        result = speed_result()
        if suite and not result.has(suite):
            return 'Not measured on this machine.'
        picture = picture_paths(result, SPEED.relative_to(RESULTS.parent)).get(suite)
        return (f'![{alt}]({picture.as_posix()})\n\n' if alt and picture else '') + table(result)

    return block


def speed_choices():
    """What every operator gains, by network, on each machine where every form was measured."""
    found = []
    for path in sorted(RESULTS.glob('*/operator_choices.json')):
        result = json.loads(path.read_text())
        e = result['environment']
        found.append(f'{operator_choices.summary(result)}\n\n{operator_choices.words(result)} {e["cpu"]}, '
                     f'{e["threads"]} threads: [every call](results/{path.parent.name}/operator_choices.md).')
    return '\n\n'.join(found) or 'Not measured.'


def any_upernet():
    """Other people's UperNets of 512 channels, how many times faster ``accelerate`` makes them."""
    result = json.loads(OTHERS.read_text())
    cells = []
    for row in others.rows(result):
        if row['channels'] == '512' and 'UP' in row['name'].upper():
            cells.append([row['name'], *(describe_ratio(Interval(row[mode]['faster'], *row[mode]['interval']))
                                         for mode in ('train', 'infer'))])
    return markdown_table(['512-channel head', 'training, times faster', 'inference, times faster'], cells)


def killed_runs():
    result = json.loads((RELIABILITY / 'kills.json').read_text())
    made = result['environment']
    return (f'{reliability_table(result)}\n\n{made["date"][:10]}, {made["device_name"]}, one thread, '
            f'torch {made["versions"]["torch"]}.')


def inference():
    """InceptionNeXt-T in each runtime, plain and as fast as it was measured."""
    return inference_report.fastest(json.loads(INFERENCE.read_text()))


def inference_goals():
    return inference_report.goals_section(json.loads(INFERENCE.read_text()))


def inference_words():
    return inference_report.words(json.loads(INFERENCE.read_text()))


def inference_accuracy():
    return inference_report.accuracy_section(json.loads(INFERENCE.read_text())['accuracy'])


def own_results():
    """What the recipe for one's own images reached, by path: the longest runs first."""
    found = {path: json.loads(path.read_text()) for path in sorted(RESULTS.glob('*/camvid_own*.json'))}
    return dict(sorted(found.items(), key=lambda item: -item[1]['minutes']))


def own_line(path, content, folder, what=''):
    return (f'- {what}{own_recipe.words(content)} [Curve, classes]'
            f'({path.relative_to(folder).with_suffix(".md").as_posix()})')


def camvid_own():
    """A line a file, and of each that has variants what they tell."""
    found = own_results()
    lines = '\n'.join(own_line(path, content, ROOT / 'docs') for path, content in found.items())
    parts = [own_parts.section(content) for content in found.values() if own_parts.effects(content['runs'])]
    return '\n\n'.join([lines or 'Not measured yet.', *(parts or ['What each part of the recipe brings is not '
                                                                 'measured.'])])


def camvid_own_words():
    """Of the longest runs, and in brief what shorter ones of more seeds reached."""
    text, seeds = '', 0
    for path, content in own_results().items():
        scores = [run['mIoU'] for run in content['runs'] if run['variant'] == own_parts.RECIPE]
        if not text:
            text = own_line(path, content, ROOT, 'CamVid from scratch, 367 images, 11 classes (the schedule was '
                            'chosen on the validation images): ')
        elif len(scores) > seeds:
            text += (f'; [{content["minutes"]:g} minutes]({path.relative_to(ROOT).with_suffix(".md").as_posix()}): '
                     f'{own_recipe.spread(scores)} ({len(scores)} seeds)')
        seeds = max(seeds, len(scores))
    return text or 'Not measured yet.'


def replaced():
    return totals_table(json.loads((RESULTS / 'replacement.json').read_text()))


def random_inputs():
    return fuzzing.words(json.loads((RELIABILITY / 'fuzz.json').read_text()))


def sanitized():
    result = json.loads((RELIABILITY / 'sanitize.json').read_text())
    return (f'{result["environment"]["date"][:10]}, {result["compiler"]}: {result["cases"]} random inputs, '
            f'{"no finding" if result["passed"] else "findings"}.')


def watched_run():
    return long_run.words(json.loads((RELIABILITY / 'long_run.json').read_text()))


def memory_of_windows():
    result = json.loads(WINDOW_MEMORY.read_text())
    return f'{window_memory.table(result)}\n\n{window_memory.words(result)}'


def large_image():
    return window_memory.large_table(json.loads(WINDOW_MEMORY.read_text()))


def speed_of_windows():
    if not WINDOW_SPEED.is_file():
        return 'Not measured.'
    result = json.loads(WINDOW_SPEED.read_text())
    return f'{window_speed.table(result)}\n\n{window_speed.words(result)}'


def limit_of_backbones():
    if not BACKBONE_LIMIT.is_file():
        return 'Not measured.'
    result = json.loads(BACKBONE_LIMIT.read_text())
    return f'{backbone_limit.table(result)}\n\n{backbone_limit.words(result)}'


BLOCKS = dict(
    window_memory=memory_of_windows, large_image=large_image, window_speed=speed_of_windows,
    backbone_limit=limit_of_backbones, mini_run=mini_run,
    own_images_walk=own_images_walk, any_upernet=any_upernet,
    paper=paper, inference=inference, inference_words=inference_words,
    inference_goals=inference_goals, inference_accuracy=inference_accuracy, replaced=replaced,
    killed_runs=killed_runs, camvid_own=camvid_own, camvid_own_words=camvid_own_words,
    random_inputs=random_inputs, sanitized=sanitized, watched_run=watched_run, speed=speed,
    speed_machines=speed_machines, **{f'speed_{name}': of_speed(table) for name, table in dict(
        goals=lambda result: goals_table(goals(result)), mixers=mixers_table,
        limits=lambda result: limits_table(result, SPEED), processes=processes_text).items()})
BLOCKS |= dict(
    speed_parts=of_speed(parts_table, 'parts', 'What each part brings alone, and what leaving it out costs'),
    speed_growth=of_speed(growth_table, 'growth', 'Seconds a megapixel by the side of an image and by batch'),
    speed_threads=of_speed(threads_table, 'threads'),
    speed_compiled=of_speed(compiled_table, 'compile'), speed_choices=speed_choices)
DOCUMENTS = {
    'docs/inference.md': ('window_memory', 'window_speed', 'large_image'),
    'docs/export.md': ('inference', 'inference_goals', 'inference_accuracy'),
    'docs/own_images.md': ('camvid_own', 'own_images_walk'),
    'docs/generalization.md': ('replaced', ),
    'README.md': ('mini_run', 'any_upernet', 'camvid_own_words', 'speed', 'inference_words'),
    'docs/ade20k.md': ('paper', ),
    'docs/reliability.md': ('killed_runs', 'random_inputs', 'sanitized', 'watched_run'),
    'docs/speed.md': ('speed_machines', 'speed_goals', 'speed_mixers', 'backbone_limit', 'speed_limits',
                      'speed_parts', 'speed_growth', 'speed_threads', 'speed_compiled', 'speed_choices',
                      'speed_processes')}

# GPUs: what was measured on each, what was estimated of it, and what was emulated.


def gpus():
    """Results of `make gpu` by path."""
    return {path: json.loads(path.read_text()) for path in sorted(RESULTS.glob('*/gpu.json'))}


def gpu_measured():
    parts = []
    for path, result in gpus().items():
        e = result['environment']
        parts.append(f'[{e["device_name"]}](results/{path.parent.name}/gpu.md), commit {e["commit"]}, torch '
                     f'{e["versions"]["torch"]}, host {e["cpu"]} with {e["cpu_cores"]} cores:\n\n'
                     f'{gpu_report.segmentors_table(result)}')
    return '\n\n'.join(parts) or 'Nothing was measured.'


def gpu_words(folder):
    """A line a GPU; ``folder`` is that of the document, as links need it."""
    def block():
        return '\n'.join(f'- GPU ([{result["environment"]["device_name"]}]({folder}{path.parent.name}/gpu.md)), '
                         f'accelerated InceptionNeXt-T against stock in its faster layout: {gpu_report.words(result)}.'
                         for path, result in gpus().items()) or '- On a GPU nothing was measured.'
    return block


def gpu_compared():
    estimated = json.loads((RESULTS / 'gpu_estimate.json').read_text())
    return '\n\n'.join(gpu_report.compared_table(estimated, result) for result in gpus().values())


def gpu_stream_table():
    return gpu_stream.table(json.loads((RESULTS / 'gpu_stream.json').read_text()))


BLOCKS |= dict(
    gpu_measured=gpu_measured, gpu_families=lambda: '\n\n'.join(map(gpu_report.families_table, gpus().values())),
    gpu_compared=gpu_compared, gpu_stream=gpu_stream_table, gpu_words=gpu_words('docs/results/'),
    speed_gpus=gpu_words('results/'))
DOCUMENTS['docs/gpu.md'] = ('gpu_measured', 'gpu_families', 'gpu_compared', 'gpu_stream')
DOCUMENTS['README.md'] += ('gpu_words', )
DOCUMENTS['docs/speed.md'] += ('speed_gpus', )

# Operators; blocks say so where nothing was measured.
path = OPERATORS if OPERATORS.is_file() else None
operators = document_blocks(path and Operators(json.loads(path.read_text())), path, ROOT / 'docs')
BLOCKS |= {f'operators_{name}': operators[name] for name in OPERATORS_SHOWN}
DOCUMENTS['docs/factorized_convolutions.md'] = tuple(f'operators_{name}' for name in OPERATORS_SHOWN)


def filled(text, names):
    """``text`` with every block of ``names`` between its markers replaced by what the result files say."""
    for name in names:
        pattern = rf'(<!-- begin {name}: .*? -->\n).*?(<!-- end {name} -->)'
        if not re.search(pattern, text, flags=re.DOTALL):
            raise UserError(f'the document has no block {name!r}; expected: <!-- begin {name}: python tools/readme.py '
                            f'--> and <!-- end {name} -->.')
        text = re.sub(pattern, lambda m, b=BLOCKS[name]: f'{m[1]}{b()}\n{m[2]}', text, flags=re.DOTALL)
    return text


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(
        description='Write every table and picture of README.md and docs/ from docs/results')
    parser.add_argument('--run', metavar='WORK_DIR', help='take the excerpt of a run from here first')
    args = parser.parse_args()
    if args.run:
        write_text(EXCERPT, excerpt_of(args.run))
    drawn = write_reports(RESULTS)
    for document, names in DOCUMENTS.items():
        path = ROOT / document
        write_text(path, filled(path.read_text(), names))
    write_text(CLAIMS, claims_page(RESULTS))
    write_catalogue(ROOT)
    print('Pictures drawn anew: ' + (', '.join(str(path.relative_to(ROOT)) for path in drawn) or 'none') + '.')


if __name__ == '__main__':
    main()
