"""Random numbers of a sample that depend on the seed of the run, the place of its draw, and its index, and on nothing
else: not on which worker or process loads it, nor on whether the run was interrupted before.

:class:`NumberedSampler` says which draw of the run an index is, and :class:`SeededDataset` seeds Python, NumPy and
torch from it before its data set loads the sample. Both go around what a config names; :func:`seeded` puts them there.
"""
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler


class Draw(int):
    """An index of a data set, and the number of its draw, counted over all processes from the start of the run."""
    number: int

    def __new__(cls, index, number):
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.number)


@DATA_SAMPLERS.register_module()
class NumberedSampler(Sampler):
    """The indices of a sampler as :class:`Draw`.

    Processes draw in turns, as mmengine's samplers do: draw ``n`` of process ``r`` of ``p`` is number ``p * n + r`` of
    the run. So another number of processes that shares the same batch has the same draws.

    Args:
        dataset (Dataset), seed (int | None): For ``sampler``.
        sampler (dict): Config of the sampler.
    """

    def __init__(self, dataset, sampler, seed=None):
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.rank, self.processes = get_dist_info()
        self.drawn = 0
        if hasattr(self.sampler, 'skip'):
            self.skip = self.skip_draws  # mmengine asks whether there is one

    def __iter__(self):
        for index in self.sampler:
            number = self.processes * self.drawn + self.rank
            self.drawn += 1
            yield Draw(index, number)

    def __len__(self):
        return len(self.sampler)

    def skip_draws(self, draws):
        """Go on after the first ``draws`` of this process."""
        self.sampler.skip(draws)
        self.drawn = draws

    def set_epoch(self, epoch):
        self.sampler.set_epoch(epoch)


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A data set whose sample has random numbers of its own, whoever loads it and when.

    Python's, NumPy's and torch's generators are as before once a sample is loaded: in the main process its augmentation
    and the model's dropout do not depend on each other. Everything else is the data set's own.

    Args:
        dataset (dict | Dataset): The data set, or its config.
        seed (int): Of the run.
    """

    def __init__(self, dataset, seed):
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.seed = seed
        self.warned = False

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet while one is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if not isinstance(index, Draw):
            if not self.warned:
                self.warned = True
                print_log('The sampler of train_dataloader does not pass on which draw of the run an index is, so a '
                          'resumed run, or one of another number of workers, augments the images in another way.',
                          'current', level=30)
            return self.dataset[index]
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        words = np.random.SeedSequence((self.seed % 2**64, index.number, int(index))).generate_state(6).tolist()
        random.seed(words[0] << 32 | words[1])
        np.random.seed(words[2:4])  # noqa: NPY002  transforms draw from the global generator
        torch.default_generator.manual_seed(words[4] << 31 | words[5] >> 1)
        try:
            return self.dataset[int(index)]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.set_rng_state(before[2])


def seeded(dataloader, seed):
    """The config of a data loader with :class:`NumberedSampler` and :class:`SeededDataset` around its own.

    A loader that is built, or whose parts are, stays as it is.
    """
    if not all(isinstance(part, dict) for part in (
            dataloader, dataloader.get('dataset'), dataloader.get('sampler'))):
        return dataloader
    return {**dataloader, 'dataset': dict(type=SeededDataset, dataset=dataloader['dataset'], seed=seed),
            'sampler': dict(type=NumberedSampler, sampler=dataloader['sampler'])}


def reseed(loader, seed):
    """Give a loader that has drawn nothing yet the seed of a checkpoint that is resumed."""
    dataset, sampler = loader.dataset, getattr(loader.batch_sampler, 'sampler', None)
    while dataset is not None and not isinstance(dataset, SeededDataset):
        dataset = vars(dataset).get('_dataset')  # mmengine's, where a config has num_batch_per_epoch
    if dataset is not None:
        dataset.seed = seed
    sampler = sampler.sampler if isinstance(sampler, NumberedSampler) else sampler
    if getattr(sampler, 'seed', None) is not None:
        sampler.seed = seed


def plain_dataset(dataset):
    """The data set that a config names, inside :class:`SeededDataset`."""
    return dataset.dataset if isinstance(dataset, SeededDataset) else dataset
