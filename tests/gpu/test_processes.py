"""Two processes, one GPU each, by NCCL; without GPUs the same by Gloo."""
import warnings

import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from gpu.models import Training, batch, build


def train(rank, folder, on_cuda, size):
    """Two steps of one of two processes; writes its weights, losses and warnings."""
    device = torch.device('cuda', rank) if on_cuda else torch.device('cpu')
    if on_cuda:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        'nccl' if on_cuda else 'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    model = build(size, device)
    loss = model.loss
    model.forward = lambda images, samples: loss(images, samples)
    wrapped = DistributedDataParallel(model, device_ids=[rank] if on_cuda else None)
    training = Training(model, torch.bfloat16 if not on_cuda or torch.cuda.is_bf16_supported() else torch.float32)
    training.model = wrapped
    wrapped.loss = wrapped.forward
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        losses = [training.step(*batch(size, device, 10 * rank + step)).item() for step in range(2)]
    weights = {name: value.cpu() for name, value in model.state_dict().items() if 'running' not in name}
    torch.save(dict(losses=losses, weights=weights, warnings=[str(w.message) for w in caught]),
               f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_stay_equal_and_gradients_need_no_copies(device, size, tmp_path):
    if device.type == 'cuda' and torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    torch.multiprocessing.start_processes(
        train, (tmp_path, device.type == 'cuda', size), nprocs=2,
        start_method='spawn' if device.type == 'cuda' else 'fork')
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert all(torch.equal(value, second['weights'][name]) for name, value in first['weights'].items())
    assert first['losses'] != second['losses']      # of different images
    assert not [w for w in first['warnings'] + second['warnings'] if 'strides' in w]
