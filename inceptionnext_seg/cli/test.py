"""Evaluate a segmentor: inceptionnext-seg test CONFIG CHECKPOINT [--tta]

CHECKPOINT is one that `train` wrote, or a released UperNet of MMSegmentation's ConvNeXt for a ConvNeXt config. The
images are those of the config's test_dataloader: of your own, the split `test` where import made one with labels, and
otherwise `validation`.
"""
import argparse

from ..data.checks import check_folders
from ..engine.launch import (
    add_common_arguments,
    add_config_arguments,
    build_runner,
    check_writable,
    explain_errors,
    for_tta,
    load_config,
    prepare,
    show_predictions,
    unwrap,
    without_training,
    write_predictions,
)
from ..engine.own_data import require_data
from ..engine.weights import require_local
from ..errors import exit_on_user_error
from ..models.checkpoint import load_model


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('--tta', action='store_true', help='multi-scale (0.5 to 1.75) and flip, as in the papers')
    parser.add_argument('--out', help='directory for the predictions, one PNG of class indices an image')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='directory for pictures of labels and predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='the interval of --show in seconds')
    add_common_arguments(parser)
    return parser.parse_args()


@exit_on_user_error
def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.data_root, lambda cfg: require_data(cfg, args.checkpoint))
    prepare(cfg, args)
    require_local(args.checkpoint)
    without_training(cfg)
    check_folders(cfg, ('test_dataloader', ))
    if args.show_dir:
        check_writable(args.show_dir, '--show-dir', 'give another')
    if args.show or args.show_dir:
        show_predictions(cfg, args)
    if args.tta:
        cfg = for_tta(cfg)
    if args.out:
        check_writable(args.out, '--out', 'give another')
        write_predictions(cfg, args.out)
    # The runner would load or resume it over CHECKPOINT.
    cfg.load_from, cfg.resume = None, False
    with explain_errors(trains=False):
        runner = build_runner(cfg)
        meta = load_model(unwrap(runner.model), args.checkpoint)
        runner.cfg.load_from = args.checkpoint  # for metrics.json
        runner.message_hub.update_info('trained_seed', meta.get('seed') if isinstance(meta, dict) else None)
        runner.test()
