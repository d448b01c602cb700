"""The arms: a config each, all of ``configs/ablations/powered``."""
import copy

from ..sweep import parse_options, plan
from ..trainings import ROOT

FOLDER = ROOT / 'configs/ablations/powered'
REFERENCE = 'inception'
# Arms of one network, whose initial values are drawn anew: their mean is what the others are compared with.
CONTROL = (REFERENCE, 'inception_b', 'inception_c')
# In the order of the tables: what is changed.
MAIN = dict(
    inception='Inception, as it is', dw7x7='7×7 depthwise, all channels', dw3x3='3×3 depthwise, all channels',
    identity='identity', no_horizontal='no horizontal band', no_vertical='no vertical band', no_square='no square',
    sequential='bands in sequence', ratio1_8='ratio 1/8 instead of 1/4', ratio1_16='ratio 1/16 instead of 1/4')
# In the order in which a seed is trained.
TITLES = dict(
    MAIN, inception_b='Inception, drawn again', inception_c='Inception, drawn a third time',
    ln_inception='Inception, LayerNorm', ln_dw7x7='7×7 depthwise, LayerNorm')
COMPARED = tuple(arm for arm in MAIN if arm != REFERENCE)
# Rows: LayerNorm, BatchNorm. Columns: 7×7, Inception. The second row is of the main arms.
FACTORIAL = (('ln_dw7x7', 'ln_inception'), ('dw7x7', REFERENCE))
PILOT = (REFERENCE, 'dw7x7')
# So that no run of the pilot, which decides length and seeds, is among those that are tested.
PILOT_SEEDS = (100, 101, 102, 103)
PILOT_ITERATIONS = 2400
INTERVAL = 50     # iterations from one validation to the next
RUNS_OF_A_SEED = len(TITLES)
LOADERS = ('train', 'val', 'test')


def config_of(arm):
    return str((FOLDER / f'upernet_inceptionnext_a3_{arm}_mini.py').relative_to(ROOT))


def candidates(arms, work_dir, options):
    """A :class:`~..sweep.Candidate` of each arm, with its title for a name."""
    found = plan([str(ROOT / config_of(arm)) for arm in arms], {}, options, work_dir)
    return [candidate._replace(name=arm) for arm, candidate in zip(arms, found, strict=True)]


def on_scenes(candidate, seed):
    """A candidate with scenes of the seed's own, drawn on first use, and a folder of its own for its run."""
    options = [f'{loader}_dataloader.dataset.{key}={value}' for loader in LOADERS for key, value in (
        ('data_root', f'{candidate.cfg[f"{loader}_dataloader"].dataset.data_root}_{seed}'), ('seed', seed))]
    cfg = copy.deepcopy(candidate.cfg)
    cfg.merge_from_dict(parse_options(options))
    return candidate._replace(options=[*candidate.options, *options], folder=candidate.folder / f'scenes_{seed}',
                              cfg=cfg)


def options_of(iterations, first_validation=None):
    """Of a run of another length; of the last three validations alone."""
    begin = [] if first_validation is None else [f'train_cfg.val_begin={first_validation}']
    return [f'train_cfg.max_iters={iterations}', *begin]
