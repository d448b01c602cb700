"""Fill the marked blocks of README.md from docs/results: python tools/readme.py

With --run WORK_DIR the excerpt of a training run is taken from its newest log first.
"""
import argparse
import json
import re
import statistics
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_text
from studies.paper import MMSEGMENTATION_CONVNEXT, UPERNET
from studies.throughput.candidates import ALL, AS_SHIPPED, DEPLOYED, STOCK
from studies.throughput.summary import summarize
from studies.timing import describe_ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results'
EXCERPT = RESULTS / 'mini_run.txt'


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
    return f'```\n{EXCERPT.read_text().rstrip()}\n```' if EXCERPT.is_file() else ''


def paper():
    rows = []
    for row in UPERNET:
        stock = MMSEGMENTATION_CONVNEXT[row.arch] if row.family == 'ConvNeXt' else None
        rows.append([f'{row.family}-{row.arch[0].upper()}', f'{row.parameters} M', f'{row.macs} G', row.miou,
                     f'{stock[0]} / {stock[1]}' if stock else '–', 'not trained'])
    return markdown_table(
        ['backbone', 'parameters', 'MACs', 'paper, mIoU', "MMSegmentation's checkpoint, single scale / multi-scale",
         'here'], rows)


def camvid():
    """mIoU, speed and memory of the CamVid runs, from the file that tools/compare.py wrote."""
    path = RESULTS / 'camvid.json'
    if not path.is_file():
        return ''
    rows = []
    for candidate in json.loads(path.read_text())['candidates']:
        runs = [run['metrics'] for run in candidate['runs']]
        miou = [run['mIoU'] for run in runs]
        speed = [run['train_throughput']['images_per_s'] for run in runs]
        memory = [run['train_throughput']['peak_memory_MiB'] for run in runs]
        rows.append([candidate['name'], f'{statistics.mean(miou):.2f} ± {statistics.stdev(miou):.2f}', len(runs),
                     f'{statistics.median(speed):.2f}', f'{max(memory):.0f}'])
    return markdown_table(
        ['backbone', 'mIoU, mean ± standard deviation', 'seeds', 'training images/s, median', 'peak memory MiB'], rows)


def speed():
    """Ours as a ratio to stock in images/s and memory, from the file that tools/benchmark.py wrote."""
    path = RESULTS / 'speed.json'
    if not path.is_file():
        return ''
    rows = []
    for run in json.loads(path.read_text())['runs']:
        setting = run['setting']
        first, *others = summarize(run)
        size = f'{setting["size"]}×{setting.get("width") or setting["size"]}'
        for ours in others:
            change = ours['name'].partition('::')[2]
            if first['name'] not in (STOCK, AS_SHIPPED) or change not in ('', ALL, DEPLOYED):
                continue
            memory = ours['step_memory'] and first['step_memory'] and ours['step_memory'] / first['step_memory']
            against = ', against stock as shipped' if first['name'] == AS_SHIPPED else ''
            rows.append([
                f'{setting["part"]}, {setting["mode"]}, {setting["dtype"]}, {setting["batch_size"]} × {size}{against}',
                f'{Path(ours["name"].partition("::")[0]).stem}{", " + change if change == DEPLOYED else ""}',
                f'{first["images_per_s"]:.3g}', f'{ours["images_per_s"]:.3g}', describe_ratio(ours['speedup']),
                f'{memory:.2f}' if memory else '–'])
    return markdown_table(
        ['', 'ours', 'stock, images/s', 'ours, images/s', 'speed, ours / stock (95 %)',
         'memory of the step, ours / stock'], rows)


BLOCKS = dict(mini_run=mini_run, paper=paper, camvid=camvid, speed=speed)


def filled(text):
    """``text`` with every block between its markers replaced by what the result files say."""
    for name, block in BLOCKS.items():
        pattern = rf'(<!-- begin {name}: .*? -->\n).*?(<!-- end {name} -->)'
        if not re.search(pattern, text, flags=re.DOTALL):
            raise UserError(f'README.md has no block {name!r}; expected: <!-- begin {name}: python tools/readme.py --> '
                            f'and <!-- end {name} -->.')
        text = re.sub(pattern, lambda m, b=block: f'{m[1]}{b()}\n{m[2]}', text, flags=re.DOTALL)
    return text


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(description='Fill the marked blocks of README.md from docs/results')
    parser.add_argument('--run', metavar='WORK_DIR', help='take the excerpt of a run from here first')
    args = parser.parse_args()
    if args.run:
        write_text(EXCERPT, excerpt_of(args.run))
    readme = ROOT / 'README.md'
    write_text(readme, filled(readme.read_text()))


if __name__ == '__main__':
    main()
