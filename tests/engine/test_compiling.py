"""``compile`` of a config: what is compiled, how often, and that it trains as it does without."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch._dynamo.utils import counters

from inceptionnext_seg import accelerate
from inceptionnext_seg.engine.accelerate_hook import AccelerateHook
from inceptionnext_seg.engine.compiling import CompileHook
from inceptionnext_seg.engine.finite import FiniteHook

pytestmark = [pytest.mark.compile, pytest.mark.filterwarnings('ignore:Dynamo')]


class Losses(Hook):
    def before_train(self, runner):
        self.found = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.found.append(outputs['loss'].item())


@pytest.fixture(scope='module')
def settings(root):
    """Config of a small UperNet, with the optimizer of the recipe."""
    cfg = Config.fromfile(root / 'configs/upernet_inceptionnext_a_mini.py')
    cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), dims=(16, 16, 16, 16))
    cfg.model.backbone.drop_path_rate = 0.
    cfg.model.decode_head.update(in_channels=[16] * 4, channels=16, dropout_ratio=0.)
    cfg.model.auxiliary_head.update(in_channels=16, channels=16, dropout_ratio=0.)
    return cfg


def batches(count):
    generator = torch.Generator().manual_seed(0)
    return [dict(
        inputs=[torch.randint(256, (3, 64, 64), generator=generator, dtype=torch.uint8) for _ in range(2)],
        data_samples=[SegDataSample(
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), img_path=f'{step}-{i}.jpg', flip=step % 2 == 0),
            gt_sem_seg=PixelData(data=torch.randint(18, (1, 64, 64), generator=generator))) for i in range(2)])
        for step in range(count)]


def train(settings, folder, hooks, compiling, steps=3):
    """The losses of a run in which every step has another learning rate."""
    init_default_scope('mmseg')
    torch._dynamo.reset()
    counters.clear()
    losses = Losses()
    data = batches(steps)
    runner = Runner(
        model=settings.model, work_dir=str(folder), train_cfg=dict(by_epoch=False, max_iters=steps),
        train_dataloader=torch.utils.data.DataLoader(data, batch_size=None, collate_fn=lambda batch: batch),
        optim_wrapper=settings.optim_wrapper, param_scheduler=dict(type='PolyLR', power=1., by_epoch=False, end=steps),
        default_hooks=dict(logger=None, checkpoint=None, sampler_seed=None), custom_hooks=[losses, *hooks],
        default_scope='mmseg', randomness=dict(seed=0), experiment_name=folder.name, cfg=dict(compile=compiling))
    runner.train()
    return losses.found, runner


def test_a_compiled_run_has_one_graph_for_all_steps_and_the_losses_of_one_that_is_not(settings, tmp_path):
    expected, _ = train(settings, tmp_path / 'eager', [AccelerateHook(), CompileHook(), FiniteHook()], None)
    assert counters['stats']['unique_graphs'] == 0
    found, runner = train(settings, tmp_path / 'compiled', [AccelerateHook(), CompileHook(), FiniteHook()],
                          dict(backend='eager'))
    assert (counters['stats']['unique_graphs'], sum(counters['graph_break'].values())) == (1, 0)
    assert found == pytest.approx(expected, rel=1e-5)
    assert 'loss' not in vars(runner.model)     # and nothing of it stays


def test_the_recipes_optimizer_can_be_traced_as_mmengine_does_with_the_whole_step(settings):
    """mmengine's own compile, without the hook, traces the optimizer's step: groups that are ConfigDicts it cannot."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    wrapper = build_optim_wrapper(model, settings.optim_wrapper)
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch._dynamo.reset()
    torch.compile(wrapper.step, backend='eager')()
    assert len(wrapper.optimizer.param_groups) == 2
    assert not any(map(torch.equal, before[:1], model.parameters()))


def test_a_training_step_is_one_graph_without_tables_in_it(settings):
    """Tables of resampling depend on sizes alone: in the graph each step would make them again."""
    init_default_scope('mmseg')
    model = MODELS.build(settings.model).train()
    accelerate(model)
    batch, = batches(1)
    images = torch.stack(batch['inputs']).float()
    torch._dynamo.reset()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = torch._dynamo.explain(model.loss)(images, batch['data_samples'])
    assert (found.graph_break_count, found.graph_count) == (0, 1)
    nodes = [node for node in found.graphs[0].graph.nodes if node.op.startswith('call')]
    names = ' '.join(str(node.target) for node in nodes)
    assert not any(name in names for name in ('arange', 'floor', 'scatter', 'index_select', 'argsort', 'bincount'))
    assert len(nodes) < 600
