"""Runs of studies that are made up, and what configs of arms differ in."""
from types import SimpleNamespace

import numpy as np
from mmengine.config import Config

from studies.ablations.arms import PILOT, PILOT_SEEDS
from studies.sweep import Candidate
from studies.trainings import ROOT


def flatten(value, path=''):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = [leaf for key, child in items for leaf in flatten(child, f'{path}.{key}'.lstrip('.'))]
    return found or [(path, value)]


def changed(path, baseline):
    ours, theirs = (dict(flatten(Config.fromfile(ROOT / file).to_dict())) for file in (path, baseline))
    return {'.'.join(key.split('.')[:3]) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


def pilot_runs(noise=0.3):
    generator = np.random.default_rng(0)
    runs = []
    for arm in PILOT:
        for seed in PILOT_SEEDS:
            iterations = range(50, 2450, 50)
            level = generator.normal(0, noise)
            runs.append(dict(
                arm=arm, seed=seed, seconds_per_iteration=0.3, seconds_per_validation=4., starts=1, date='2026-01-02',
                seconds_of_process=2400 * 0.3 + 48 * 4 + 20, iterations=2400,
                commit='abc', load_average=0.4, threads=2, device_name='cpu', versions=dict(torch='2'),
                curve=[dict(iteration=i, cross_entropy=0.6 + 300 / (i + 200) - level / 50,
                            mIoU=40 - 9000 / (i + 200) + level) for i in iterations]))
    return runs


def unread(names, folder, options=()):
    """Candidates, of which no config is read."""
    cfg = SimpleNamespace(train_cfg=SimpleNamespace(max_iters=400, total_batch_size=8))
    return [Candidate(name, name, [], folder / name, cfg) for name in names]
