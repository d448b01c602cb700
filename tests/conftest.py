"""A tiny data set, and the tools of this repository run on it as commands or in this process."""
import contextlib
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# Which form of an operator runs may not depend on a clock here, except in the tests of just that.
os.environ['INCEPTIONNEXT_SEG_MEASURE'] = '0'
PALETTE = np.random.default_rng(0).integers(40, 216, (11, 3))


def write_split(root, split, count):
    """Images of 96×96 pixels, colour telling the class, in CamVid's classes, with a void border and noise."""
    random = np.random.default_rng(len(split))
    for folder in ('images', 'annotations'):
        (root / folder / split).mkdir(parents=True)
    for i in range(count):
        mask = random.integers(0, 11, (3, 3)).repeat(32, 0).repeat(32, 1).astype(np.uint8)
        image = PALETTE[mask] + random.integers(-20, 20, (96, 96, 3))
        mask[:4] = 255
        Image.fromarray(image.astype(np.uint8)).save(root / 'images' / split / f'{i}.jpg', quality=95)
        Image.fromarray(mask).save(root / 'annotations' / split / f'{i}.png')


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Small operators gain nothing from threads, and on a busy machine lose much to waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def checked_files(tmp_path_factory):
    """What was checked of data sets that lie in temporary folders is not kept in the user's cache."""
    with mock.patch('inceptionnext_seg.data.checked.cache_folder', return_value=tmp_path_factory.mktemp('cache')):
        yield


@pytest.fixture(scope='session')
def root():
    """The repository."""
    return ROOT


def real_data(name):
    """The folder of a real data set: where configs look, in INCEPTIONNEXT_SEG_DATA, or beside the repository."""
    given = os.environ.get('INCEPTIONNEXT_SEG_DATA')
    for place in (ROOT / 'data', *([Path(given)] if given else []), ROOT.parent / 'shared/data'):
        if (place / name).is_dir():
            return place / name
    pytest.skip(f'needs {name} in data/ of the repository, or in the folder that INCEPTIONNEXT_SEG_DATA names'
                f'{f" ({given})" if given else ""}')


@pytest.fixture(scope='session')
def camvid():
    """CamVid in the layout of its config."""
    return real_data('camvid')


@pytest.fixture(scope='session')
def ade20k_sample():
    """Three real images of ADE20K with their annotations, and objectInfo150.csv."""
    return real_data('ade20k_sample')


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A folder of images and masks in the layout of the CamVid config: 6 training and 4 validation images."""
    folder = tmp_path_factory.mktemp('tiny')
    write_split(folder, 'training', 6)
    write_split(folder, 'validation', 4)
    return folder


@pytest.fixture(scope='session')
def tiny_options(tiny_data):
    """What follows --cfg-options to make a run of the CamVid config tiny: 4 iterations of 2 crops of 64×64."""
    loaders = [f'{split}_dataloader.{setting}' for split in ('train', 'val', 'test') for setting in (
        f'dataset.data_root={tiny_data}', 'num_workers=0', 'persistent_workers=False')]
    return [
        *loaders, 'train_dataloader.dataset.pipeline.2.scale=(96,96)', 'model.decode_head.channels=16',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'model.auxiliary_head.channels=16',
        'model.data_preprocessor.size=(64,64)', 'train_cfg.total_batch_size=2', 'auto_scale_lr.base_batch_size=2',
        'train_cfg.max_iters=4', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1', 'custom_hooks.0.warmup_iters=1']


@pytest.fixture(scope='session')
def run_command():
    """``run_command('tools/train.py', *arguments)`` in the repository, in a process of its own with one thread.

    ``launcher`` stands before the script: ``('-m', 'torch.distributed.run', '--nproc_per_node=2')``.
    """
    def run(script, *arguments, launcher=(), cwd=ROOT):
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
        return subprocess.run(
            [sys.executable, *launcher, str(script), *map(str, arguments)], cwd=cwd, env=environment,
            capture_output=True, text=True, timeout=600)
    return run


@pytest.fixture(scope='session')
def call_tool():
    """``call_tool('train', *arguments)``: ``main()`` of tools/train.py here, which spares a start; as a command's."""
    def call(name, *arguments):
        path = ROOT / 'tools' / f'{name}.py'
        # As in a new process: what a test replaced elsewhere is imported anew.
        sys.modules.pop(f'inceptionnext_seg.cli.{name}', None)
        spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        out, err, code = io.StringIO(), io.StringIO(), 0
        # Memory that one tool keeps would stay with all tests after it.
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ), \
                mock.patch('inceptionnext_seg.engine.launch.keep_freed_memory'), \
                mock.patch.object(sys, 'argv', [str(path), *map(str, arguments)]):
            try:
                tool.main()
            except SystemExit as exit:
                code = exit.code
        return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
    return call
