"""Measure throughput: python tools/benchmark.py CONFIG [CONFIG ...] --against stock --dtype fp32 bf16

Candidates take turns in one process. Several values of --mode, --part and --dtype measure each combination.
"""
import argparse
import itertools
import re
from pathlib import Path

import _repository  # noqa: F401
import torch
from tqdm import tqdm

from inceptionnext_seg.engine.accelerate_hook import configured_parts
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.engine.options import OptionsAction
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object, write_json
from inceptionnext_seg.provenance import environment
from studies.throughput import measuring
from studies.throughput.candidates import AS_SHIPPED, STOCK, candidate_config, stock_config, variants
from studies.throughput.loader import measure_loader
from studies.throughput.mixer import measure_mixer
from studies.throughput.profile import profile
from studies.throughput.report import report, write_report
from studies.throughput.setting import Setting
from studies.throughput.summary import best_layouts, summarize
from studies.timing import DTYPES

WHAT = 'a result of tools/benchmark.py'


def parse_args():
    parser = argparse.ArgumentParser(description='Throughput of segmentors and backbones, side by side')
    parser.add_argument('configs', nargs='*', help='config files; ratios are to the first')
    parser.add_argument('--against', choices=[STOCK, AS_SHIPPED],
                        help="add MMSegmentation's own ConvNeXt-T UperNet, the first; as-shipped: on a CPU with memory "
                             'given back to the system at once, as the C library does by default')
    parser.add_argument('--mode', nargs='+', choices=['train', 'infer'], default=['train'])
    parser.add_argument('--part', nargs='+', choices=['segmentor', 'backbone'], default=['segmentor'])
    parser.add_argument('--ablate', action='store_true',
                        help='the first config not accelerated, with each part of the acceleration alone, with all')
    parser.add_argument('--batch-size', type=int, nargs='+', default=[2],
                        help='halved for all where one runs out of memory')
    parser.add_argument('--size', nargs='+', default=['512'], metavar='SIDE | HEIGHTxWIDTH', help='pixels of an image')
    parser.add_argument('--dtype', nargs='+', choices=list(DTYPES), default=['fp32'])
    parser.add_argument('--layout', choices=['nchw', 'nhwc', 'best'], default='best', help='best measures both')
    parser.add_argument('--compile', action='store_true', help='torch.compile the forward')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--rounds', type=int, default=10, help='samples of each candidate, at least 8')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before those that count')
    parser.add_argument('--data', action='store_true', help="measure the first config's data loading too")
    parser.add_argument('--profile', action='store_true', help='where a training step spends its time')
    parser.add_argument('--no-memory', action='store_true', help='leave out peak memory, which needs more processes')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    parser.add_argument('--out', default='work_dirs/benchmark/throughput.json',
                        help='result file; tables (.md) and pictures (.png) are written beside it')
    parser.add_argument('--mixer', action='store_true', help='the token mixer against one copy of its input, too')
    parser.add_argument('--append', action='store_true', help='add to the runs that the result file has already')
    parser.add_argument('--report', metavar='JSON', help="measure nothing: write this result file's tables, pictures")
    return parser.parse_args()


def check(args):
    if not args.configs and not args.against and not args.mixer:
        raise UserError('nothing to measure: give config files, --against stock, or --report FILE.')
    if args.rounds < 8:
        raise UserError(f'--rounds is {args.rounds}; expected: at least 8, so that both halves can be compared.')
    for size in args.size:
        if not re.fullmatch(r'\d+(x\d+)?', size):
            raise UserError(f'--size is {size!r}; expected: a number of pixels, such as 512, or HEIGHTxWIDTH, 512x683.')
    if args.data and not args.configs:
        raise UserError("--data measures the first config's data loading, and no config is given. Next: give one.")
    if args.ablate and not args.configs:
        raise UserError('--ablate takes the parts of a config of ours out: give one.')
    if args.profile and (args.part != ['segmentor'] or args.mode != ['train']):
        raise UserError('--profile is of the training step of a segmentor; expected: --part segmentor --mode train, '
                        f'found --part {" ".join(args.part)} --mode {" ".join(args.mode)}.')
    if args.layout == 'nchw' and 'segmentor' in args.part:
        for path in args.configs:
            parts = configured_parts(candidate_config(path, args.cfg_options))
            if parts is not None and parts.get('channels_last', True):
                raise UserError(f'--layout nchw: the acceleration of {path} lays the segmentor out in channels_last. '
                                'Next: --cfg-options default_hooks.accelerate.channels_last=False, or --layout nhwc.')
    try:
        torch.empty(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'--device {args.device} is not there: {str(error).splitlines()[0]}. Next: --device cpu.') from error
    if 'fp16' in args.dtype and args.device == 'cpu':
        raise UserError('--dtype fp16 is for CUDA; a CPU has --dtype bf16.')


def measure(args):
    layouts = ('nchw', 'nhwc') if args.layout == 'best' else (args.layout, )
    result = dict(environment=environment(args.device), runs=[], loaders=[], profiles=[])
    if args.append and Path(args.out).is_file():
        result = read_object(args.out, WHAT, 'another --out')
    if args.against:
        result['stock'] = stock_config()[1]
    command = environment(args.device)['command']
    settings = itertools.product(args.part, args.mode, args.dtype, args.size, args.batch_size)
    combinations, before = list(settings) if args.configs or args.against else [], len(result['runs'])
    for i, (part, mode, dtype, size, batch_size) in enumerate(combinations, 1):
        names = [args.against] if args.against else []
        names += [*(variants(args.configs[0], mode) if args.ablate else args.configs[:1]), *args.configs[1:]]
        height, width = ([int(n) for n in size.split('x')] * 2)[:2]
        setting = Setting(
            mode, part, batch_size, height, dtype, args.compile, args.device, None if width == height else width)
        title = f'{i}/{len(combinations)} {part} {mode} {dtype} {batch_size}×{size}'
        with tqdm(total=args.rounds + args.warmup, unit='round', desc=title) as bar:
            run = measuring.run(
                names, setting, layouts, args.cfg_options, args.rounds, args.warmup, memory=not args.no_memory,
                progress=bar.update, report=bar.write)
        result['runs'].append(dict(run, command=command))
        if args.profile and part == 'segmentor' and mode == 'train':
            for best in best_layouts(run['results']):
                result['profiles'].append(profile(best['name'], args.cfg_options, setting, best['layout']))
        write_json(args.out, result)  # what is measured stays, whatever comes next
    for dtype in args.dtype if args.mixer else ():
        setting = Setting(dtype=dtype, device=args.device)
        result.setdefault('mixers', []).append(dict(measure_mixer(setting), command=command))
        write_json(args.out, result)
    if args.data:
        add_loader(args, args.configs[0], result, result['runs'][before])
        write_json(args.out, result)
    return result


def add_loader(args, name, result, run):
    """Data loading of a config beside its step in ``run``, the first of this call."""
    setting = Setting(**run['setting'])
    loader = measure_loader(candidate_config(name, args.cfg_options), setting)
    step = next(row for row in summarize(run) if row['name'].partition('::')[0] == name)
    slower = loader['images_per_s'] < step['images_per_s']
    result['loaders'].append(dict(
        loader, label=step['label'], step_images_per_s=step['images_per_s'],
        bottleneck='data loading (more num_workers, or faster storage)' if slower else 'the step'))


@exit_on_user_error
def main():
    args = parse_args()
    if args.report:
        if not Path(args.report).is_file():
            raise UserError(f'--report: no such file: {args.report}')
        result, out = read_object(args.report, WHAT, 'make it with --out'), args.report
    else:
        check(args)
        if torch.device(args.device).type == 'cpu':
            keep_freed_memory()
        result, out = measure(args), args.out
    markdown = Path(out).with_suffix('.md')
    write_report(result, markdown)
    print(report(result))
    print(f'Wrote {out}, {markdown} and the pictures beside them.')


if __name__ == '__main__':
    main()
