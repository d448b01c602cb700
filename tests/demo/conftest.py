import pytest
import torch
from mmengine.config import Config
from mmseg.apis import init_model

from inceptionnext_seg import load
from inceptionnext_seg.demo.segmenting import Model
from inceptionnext_seg.zoo import find_config


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """A segmentor of CamVid's classes with random weights."""
    cfg = Config.fromfile(find_config('upernet_inceptionnext_a_camvid'))
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.channels = 16
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('demo') / 'weights.pth'
    torch.save(dict(state_dict=init_model(cfg, device='cpu').state_dict()), path)
    return Model('tiny, weights.pth', load(cfg, path, 'cpu'))
