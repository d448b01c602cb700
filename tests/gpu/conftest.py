"""Tests for a GPU, ``make gpu``. Where there is none, they run on the CPU as far as they can: small, so that they are
known to run.

``INCEPTIONNEXT_SEG_GPU_TESTS`` names the device; without it, it is CUDA where that is.
"""
import os

import pytest
import torch

from gpu import models

# cuBLAS adds up in a fixed order only with it, and reads it when it starts.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')


@pytest.fixture(scope='session')
def device():
    found = os.environ.get('INCEPTIONNEXT_SEG_GPU_TESTS') or ('cuda' if torch.cuda.is_available() else 'cpu')
    return torch.device(found, torch.cuda.current_device()) if found == 'cuda' else torch.device(found)


@pytest.fixture
def cuda(device):
    if device.type != 'cuda':
        pytest.skip('needs a CUDA device: make gpu')
    return device


@pytest.fixture
def size(device):
    """Of the models and images: that of a training on a GPU."""
    return models.LARGE if device.type == 'cuda' else models.SMALL
