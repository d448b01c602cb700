"""The recipe for one's own images on CamVid, from scratch, and without each of its parts.

    python -m studies.own_recipe data/camvid --out docs/results/MACHINE/camvid_own.json --background

Trains configs/upernet_inceptionnext_a_own.py with --minutes 60 and three seeds, measures these runs without averaged
weights, and trains each variant with the first seed, one run after another, each a process of its own. What was
interrupted goes on from its last checkpoint: the same command, given again, finishes it. JSON and report are written
anew after each run; --report writes them and trains nothing. The machine must have no other work: what a run reaches
depends on its images/s.
"""
import argparse
import itertools
import os
import shlex
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config

from inceptionnext_seg.cli import import_dataset
from inceptionnext_seg.engine.report_page import iou_of
from inceptionnext_seg.engine.resuming import POINTER
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, read_object, replacing, write_json, write_text
from inceptionnext_seg.zoo import config_folder

from . import own_last_weights, own_parts
from .comparison.pictures import minutes_picture
from .sweep import execute, locked, tail_of
from .trainings import start_in_background

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/upernet_inceptionnext_a_own.py'
# mIoU that published networks reach on CamVid from scratch is about 51.3 (ENet) and 55.6 (SegNet).
GOALS = (55, 60)
PIPELINE = 'train_dataloader.dataset.dataset.pipeline'
RARE_CROPS, RARE_IMAGES = f'{PIPELINE}.3.prob=0.0', 'train_dataloader.dataset.oversample_thr=1e-9'
WEIGHTS = ('model.decode_head.loss_decode.class_weight=None', 'model.auxiliary_head.loss_decode.class_weight=None')
SCALES = f'{PIPELINE}.2.ratio_range=(1.0,1.0)'
# Colours almost as they are: MMSegmentation's transform does not take 0.
COLORS = tuple(f'{PIPELINE}.5.{setting}' for setting in (
    'brightness_delta=1', 'contrast_range=(1.0,1.0)', 'saturation_range=(1.0,1.0)', 'hue_delta=1'))


def crop(side, batch):
    """Another crop, and the batch that makes an iteration the same work."""
    return (f'{PIPELINE}.3.crop_size=({side},{side})', f'model.data_preprocessor.size=({side},{side})',
            f'train_cfg.total_batch_size={batch}')


# By name: what is done without, and the options of the command line.
VARIANTS = {
    'recipe': ('as it is', ()),
    # The recipe's own runs, measured once more: see own_last_weights.py.
    own_last_weights.VARIANT: ('averaged weights: the same runs with those of the last iteration', ()),
    'no_balance': ('rare-class crops, repeated images and class weights', (RARE_CROPS, RARE_IMAGES, *WEIGHTS)),
    'no_rare_crops': ('rare-class crops and repeated images', (RARE_CROPS, RARE_IMAGES)),
    'no_weights': ('class weights', WEIGHTS),
    'no_scales': ('random sizes', (SCALES, )),
    'narrow_scales': ('sizes from half to twice (0.75 to 1.5 instead)', (f'{PIPELINE}.2.ratio_range=(0.75,1.5)', )),
    'no_augmentation': ('random sizes and colours, mirror images', (SCALES, *COLORS, f'{PIPELINE}.4.prob=0.0')),
    'crop_128': ('crops of 256, 8 an iteration (128, 16 instead)', crop(128, 16)),
    'crop_352': ('crops of 256, 8 an iteration (352, 4 instead)', crop(352, 4)),
    'early_decay': ('the late decay (poly 0.9 instead of 0.4)', ('param_scheduler.1.power=0.9', )),
    'rate_half': ('the rate of 2e-3 (1e-3 instead)', ('optim_wrapper.optimizer.lr=1e-3', )),
    'rate_double': ('the rate of 2e-3 (4e-3 instead)', ('optim_wrapper.optimizer.lr=4e-3', ))}


class Run(NamedTuple):
    """A variant, a seed, and the folder of its training."""
    variant: str
    seed: int
    work_dir: Path

    @property
    def title(self):
        return f'{self.variant}, seed {self.seed}'

    def result(self):
        """What ReportHook wrote at the end; None before."""
        path = self.work_dir / 'report.json'
        found = read_object(path, 'the numbers of a run', f'delete {self.work_dir}') if path.is_file() else {}
        return found if found.get('finished') else None


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog='python -m studies.own_recipe', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='CamVid: images/ and annotations/ with training and validation')
    parser.add_argument('--out', type=Path, required=True, help='the JSON to write; a report and a picture beside it')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid_own'))
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the recipe')
    parser.add_argument('--ablation-seeds', type=int, nargs='+', default=[0], help='of the others')
    parser.add_argument('--only', nargs='+', choices=list(VARIANTS), default=list(VARIANTS), metavar='VARIANT')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--background', action='store_true', help='go on after the terminal is closed')
    parser.add_argument('--report', action='store_true', help='train nothing')
    return parser.parse_args(argv)


def data_of(args):
    """The imported data set; imported at first."""
    out = args.work_dir / 'data'
    if not out.exists():
        classes = Config.fromfile(config_folder() / '_base_/camvid.py').metainfo.classes
        if import_dataset.main([str(args.source), '--out', str(out), '--classes', ','.join(classes)]):
            raise UserError(f'{args.source} could not be imported whole, see above.')
    return out


def runs_of(args):
    """Those of the recipe first."""
    of_recipe = ('recipe', own_last_weights.VARIANT)
    return [run_of(args, variant, seed) for variant in args.only
            for seed in (args.seeds if variant in of_recipe else args.ablation_seeds)]


def run_of(args, variant, seed):
    return Run(variant, seed, args.work_dir / f'{args.minutes:g}min' / variant / f'seed_{seed}')


def command_of(run, data, minutes):
    options = VARIANTS[run.variant][1]
    return [sys.executable, '-u', str(ROOT / 'tools/train.py'), str(ROOT / CONFIG), '--data', str(data), '--minutes',
            f'{minutes:g}', '--seed', str(run.seed), '--work-dir', str(run.work_dir),
            *(['--resume'] if (run.work_dir / POINTER).is_file() else []),
            *(['--cfg-options', *options] if options else [])]


def train(run, data, args):
    """Bring a run to its end; False where it failed, or another process is at work on it."""
    with locked(run) as lock:
        if lock is None:
            print(f'{run.title}: another process trains it', flush=True)
            return False
        if run.result():
            print(f'{run.title}: done before', flush=True)
            return True
        if run.variant == own_last_weights.VARIANT:
            return own_last_weights.measure(run_of(args, 'recipe', run.seed), run.work_dir, lock)
        log = run.work_dir / 'train.log'
        print(f'{run.title}: training, output in {log}', flush=True)
        code = execute(command_of(run, data, args.minutes), log, lock)
        if code or not run.result():
            print(f'{run.title}: FAILED with exit code {code}, at the end of {log}:\n{tail_of(log)}', flush=True)
            return False
        print(f'{run.title}: mIoU {run.result()["validations"][-1]["mIoU"]:.2f}', flush=True)
        return True


def at_minute(validations, minute):
    """mIoU of the last validation that was done by then; None before the first."""
    done = [entry['mIoU'] for entry in validations if entry['minutes'] <= minute]
    return done[-1] if done else None


def collect(runs, args):
    """What the result file holds: of each run that is done its curve, its IoUs, its speed and its machine."""
    found = []
    for run in runs:
        result = run.result()
        if not result:
            continue
        metrics = [read_object(path, 'metrics', f'delete {run.work_dir}')
                   for path in sorted(run.work_dir.glob('*/metrics.json'))]
        ious = result.get('IoU') or dict(zip(
            result['classes'], iou_of(np.array(result['confusion'])).tolist(), strict=True))
        found.append(dict(
            variant=run.variant, without=VARIANTS[run.variant][0], options=list(VARIANTS[run.variant][1]),
            of_run=result.get('of_run'), seed=run.seed, minutes=result['seconds'] / 60, iterations=result['iteration'],
            mIoU=result['validations'][-1]['mIoU'], best_mIoU=max(each['mIoU'] for each in result['validations']),
            IoU={name: None if iou is None or np.isnan(iou) else iou for name, iou in ious.items()},
            validations=result['validations'], processes_of_the_run=len(metrics),
            images_per_s=(metrics[-1].get('train_throughput') or {}).get('images_per_s') if metrics else None,
            environment=metrics[-1]['environment'] if metrics else None))
    return dict(config=CONFIG, minutes=args.minutes, threads=args.threads, command=command_line(args), runs=found)


def command_line(args):
    """The command that makes this file again, wherever the images are."""
    command = ['python', '-m', 'studies.own_recipe', 'data/camvid', '--out', str(args.out), '--minutes',
               f'{args.minutes:g}', '--threads', str(args.threads), '--seeds', *map(str, args.seeds)]
    if args.ablation_seeds != [0]:
        command += ['--ablation-seeds', *map(str, args.ablation_seeds)]
    if args.only != list(VARIANTS):
        command += ['--only', *args.only]
    return shlex.join(command)


def spread(values, digits=2):
    return f'{statistics.fmean(values):.{digits}f}' + (
        f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else '')


def threads(content):
    """Of how many threads of which processor the runs are."""
    machine = (content['runs'][0]['environment'] or {}).get('cpu', 'a machine that is not recorded')
    return f'{content["threads"]} thread{"s" if content["threads"] > 1 else ""} of {machine}'


def minute_of(validations, goal):
    """The minute of the first validation from which none is below ``goal``; None where the last is."""
    above = list(itertools.takewhile(lambda entry: entry['mIoU'] >= goal, reversed(validations)))
    return above[-1]['minutes'] if above else None


def words(content):
    """What the recipe reached, in a line."""
    runs = [run for run in content['runs'] if run['variant'] == 'recipe']
    if not runs:
        return 'the recipe itself was not run.'
    scores = [run['mIoU'] for run in runs]
    goals = ''
    for goal in GOALS:
        since = [minute_of(run['validations'], goal) for run in runs]
        if None not in since:
            goals += f'; {"each " * (len(runs) > 1)}{goal} or more from minute {max(since):.0f} on'
    loads = [load for run in runs if (load := (run['environment'] or {}).get('load_average')) is not None]
    load = '' if not loads else (f'; load average at {"their" if len(runs) > 1 else "its"} end '
                                 f'{"up to " * (len(runs) > 1)}{max(loads):.1f}')
    return (f'{content["minutes"]:g} minutes on {threads(content)}, {spread([run["iterations"] for run in runs], 0)} '
            f'iterations: **mIoU {spread(scores)}** ({len(runs)} seed{"s" if len(runs) > 1 else ""}){goals}{load}.')


def report(content, picture):
    """The result in Markdown."""
    groups = {}
    for run in content['runs']:
        groups.setdefault(run['variant'], []).append(run)
    minutes = [round(content['minutes'] * share / 12, 1) for share in (1, 2, 4, 6, 8, 10)]
    table, curve, effects = [], [], own_parts.effects(content['runs'])
    for name, runs in groups.items():
        last, effect = [run['mIoU'] for run in runs], effects.get(name)
        table.append([
            name, runs[0]['without'], len(runs), spread(last), *(
                ('', '') if effect is None else (str(effect), effect.told())),
            spread([run['best_mIoU'] for run in runs]), own_parts.counts(run['iterations'] for run in runs),
            f'{statistics.fmean(run["minutes"] for run in runs):.1f}'])
        values = [[at_minute(run['validations'], minute) for run in runs] for minute in minutes]
        if name in own_parts.same_runs(runs):
            continue
        curve.append([name, *(f'{statistics.fmean(value):.1f}' if None not in value else '–' for value in values),
                      f'{statistics.fmean(last):.1f}'])
    shown = groups.get('recipe') or content['runs']
    classes = [[name, *(f'{run["IoU"][name]:.1f}' if run['IoU'][name] is not None else '–' for run in shown)]
               for name in shown[0]['IoU']]
    return '\n\n'.join([
        '# CamVid as one\'s own images',
        f'`{CONFIG}` from scratch, {content["minutes"]:g} minutes of training and validations, 367 training images, '
        f'mIoU over 11 classes on the 101 validation images after the last iteration. {threads(content)}.',
        markdown_table(['variant', 'without', 'runs', 'mIoU', 'to the recipe (95 %)', 'leaving it out',
                        'best validation', 'iterations of each run', 'minutes'], table),
        'Mean ± standard deviation over seeds. The best validation was chosen on the images that it is measured on, '
        f'and is a little too good. {own_parts.method(content["runs"])}'.rstrip(),
        '## mIoU over the minutes', f'![mIoU over minutes]({picture})',
        markdown_table(['variant', *(f'{minute:g}' for minute in minutes), 'end'], curve),
        '## IoU of each class', markdown_table(['class', *(f'seed {run["seed"]}' for run in shown)], classes),
        f'```sh\n{content["command"]}\n```']) + '\n'


def draw(content, path):
    with replacing(path) as temporary:
        Path(temporary).write_bytes(minutes_picture([
            run for run in content['runs'] if not run.get('of_run')]))


def write(runs, args):
    content = collect(runs, args)
    if not content['runs']:
        return
    picture = args.out.with_name(f'{args.out.stem}_curves.png')
    write_json(args.out, content)
    draw(content, picture)
    write_text(args.out.with_suffix('.md'), report(content, picture.name))


@exit_on_user_error
def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if args.background:
        start_in_background('studies.own_recipe', argv, args.work_dir / 'study.log')
        return
    os.environ['OMP_NUM_THREADS'] = str(args.threads)  # of the trainings
    runs, failed = runs_of(args), []
    if not args.report:
        data = data_of(args)
        for run in runs:
            if not train(run, data, args):
                failed.append(run)
            write(runs, args)
    write(runs, args)
    if failed:
        again = shlex.join(['python', '-m', 'studies.own_recipe', *argv])
        raise UserError(f'{len(failed)} of {len(runs)} runs are not done: {"; ".join(run.title for run in failed)}. '
                        f'Next: see above, and the same command: {again}')


if __name__ == '__main__':
    main()
