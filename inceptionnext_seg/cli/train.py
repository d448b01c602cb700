"""Train and evaluate a segmentor: inceptionnext-seg train upernet_inceptionnext_t_ade20k

Your own images, for an hour: inceptionnext-seg train upernet_inceptionnext_a_own --data DIR --minutes 60

Several processes: torchrun --nproc_per_node=4 -m inceptionnext_seg train CONFIG --launcher pytorch
"""
import argparse
import math
from pathlib import Path

from ..data.checks import check_folders
from ..data.description import NAME
from ..engine.launch import (
    add_common_arguments,
    add_config_arguments,
    announce_scratch,
    be_deterministic,
    build_runner,
    enable_amp,
    enable_compile,
    enable_cuda_graph,
    explain_errors,
    load_config,
    prepare,
    resume_latest,
)
from ..engine.own_data import check_work_dir, needs_data, set_minutes, use_data
from ..engine.resuming import forget_before_restarts
from ..engine.values import add_backends, check_seed
from ..engine.weights import require_local, require_weights
from ..errors import UserError, exit_on_user_error


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, checkpoint=False, example='model.backbone.init_cfg=None')
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work_dir')
    parser.add_argument('--amp', action='store_true', help='mixed precision: bf16, or fp16 on a GPU without it')
    parser.add_argument('--seed', type=int, help='random seed; drawn and logged where not given')
    parser.add_argument('--deterministic', action='store_true', help='deterministic algorithms, slower on CUDA')
    parser.add_argument('--compile', action='store_true', help='torch.compile of the losses; minutes before it trains')
    parser.add_argument('--cuda-graph', action='store_true', help='queue the losses and their gradients as one CUDA '
                        'graph: faster where the host is the slower of the two')
    parser.add_argument(
        '--data', metavar='DIR', help='train on this folder of `inceptionnext-seg import`: classes, sizes, crop, batch')
    parser.add_argument(
        '--minutes', type=float, metavar='M', help='end after so long, evaluated: the schedule is fitted to the speed')
    parser.add_argument(
        '--vis-backends', nargs='+', metavar='NAME', default=[],
        help='curves and sample predictions of every validation to tensorboard, wandb, mlflow, ... too')
    add_common_arguments(parser)
    return parser.parse_args()


def adapt(cfg, args):
    """What ``--data`` and ``--minutes`` set in a config, before its options are."""
    if args.data is not None:
        if args.data_root is not None:
            raise UserError(f'--data {args.data} and --data-root {args.data_root} both say where the data are. '
                            'Expected: one. Next: --data for a folder that `inceptionnext-seg import` wrote.')
        for line in use_data(cfg, args.data):
            print(line)
    elif needs_data(cfg) and args.data_root is not None and (Path(args.data_root) / NAME).is_file():
        raise UserError(f'config {args.config} takes its classes and sizes from the data, and --data-root '
                        f'{args.data_root} says no more than where they are. Expected: --data, for a folder that has a '
                        f'{NAME}. Next: --data {args.data_root} in its place.')
    elif args.data_root is None and needs_data(cfg):
        raise UserError(f'config {args.config} takes its classes and sizes from the data, and was not told which. '
                        'Expected: --data DIR. Next: `inceptionnext-seg import SOURCE --out data/mine`, and --data '
                        'data/mine.')
    if args.minutes is not None:
        if not 0 < args.minutes < math.inf:
            raise UserError(f'--minutes is {args.minutes:g}; expected: a number above 0.')
        set_minutes(cfg, args.minutes)


@exit_on_user_error
def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.data_root, lambda cfg: adapt(cfg, args))
    prepare(cfg, args)
    resumes = bool(args.resume or cfg.get('resume'))
    check_work_dir(cfg, resumes)
    if not resumes:
        forget_before_restarts(cfg.work_dir)
    cfg.randomness = dict(dict(seed=None), **(cfg.get('randomness') or {}))
    if args.seed is not None:
        cfg.randomness['seed'] = check_seed(args.seed)
    if args.deterministic or cfg.randomness.get('deterministic'):
        be_deterministic(cfg)
    if args.vis_backends:
        add_backends(cfg, args.vis_backends)
    if args.amp:
        enable_amp(cfg)
    if args.compile:
        enable_compile(cfg)
    if args.cuda_graph:
        enable_cuda_graph(cfg)
    if args.resume:
        resume_latest(cfg)
    announce_scratch(cfg, args.config)
    require_weights(cfg.model)
    require_local(cfg.get('load_from'))
    if args.data and not args.resume and not cfg.get('load_from') and not cfg.model.backbone.get('init_cfg'):
        print('No pretrained weights: where they can be had they matter more than any other setting. '
              'upernet_inceptionnext_a_pretrained_own has them.')
    check_folders(cfg, ('train_dataloader', 'val_dataloader'))
    with explain_errors():
        runner = build_runner(cfg)
        runner.train()
