import pytest
import torch

from inceptionnext_seg.errors import UserError
from studies.throughput import measuring
from studies.throughput import step as step_module
from studies.throughput.setting import Setting

from .common import CONVNEXT, INCEPTIONNEXT, SMALL, TickingClock


def test_candidates_share_images_that_do_not_come_twice_before_the_cache_has_lost_them():
    _, steps = measuring.fit_batch([INCEPTIONNEXT, CONVNEXT], SMALL, Setting('infer', size=64), ('nchw', ), print)
    seen = [next(step.batches)[0].data_ptr() for _ in range(2) for step in steps.values()]
    assert len(set(seen)) == 4


def test_out_of_memory_halves_the_batch_of_every_candidate_and_says_so(monkeypatch):
    class Hungry:
        def __init__(self, cfg, setting, layout, images, deployed, **settings):
            self.setting = setting

        def __call__(self):
            if self.setting.batch_size > 2:
                raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(step_module, 'Step', Hungry)
    said = []
    setting, steps = measuring.fit_batch(
        [INCEPTIONNEXT, CONVNEXT], None, Setting(batch_size=8), ('nchw', ), said.append)
    assert setting.batch_size == 2
    assert {step.setting.batch_size for step in steps.values()} == {2}
    assert len(said) == 2 and 'out of memory at batch 8' in said[0]


def test_out_of_memory_with_one_image_is_a_user_error(monkeypatch):
    def out_of_memory(cfg, setting, layout, images, deployed, **settings):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(step_module, 'Step', out_of_memory)
    with pytest.raises(UserError, match='one image'):
        measuring.fit_batch([INCEPTIONNEXT], None, Setting(batch_size=1), ('nchw', ), print)


def test_one_image_that_batch_norm_cannot_train_on_is_a_user_error():
    setting = Setting('train', batch_size=1, size=32)
    with pytest.raises(UserError, match=r'one image of 32×32 alone cannot train.*--batch-size 2'):
        measuring.fit_batch([INCEPTIONNEXT], SMALL, setting, ('nhwc', ), print)


def test_candidates_are_sampled_equally_often_in_each_layout(result):
    results = result['runs'][0]['results']
    assert [(r['name'], r['layout']) for r in results] == [
        (name, layout) for name in (INCEPTIONNEXT, CONVNEXT) for layout in ('nchw', 'nhwc')]
    assert {len(r['seconds']) for r in results} == {8}
    assert all(r['macs'] > 0 and r['nbytes'] > 0 for r in results)


def test_a_run_waits_for_the_device_before_each_reading_of_the_clock(monkeypatch):
    clock = TickingClock(fine=True)
    monkeypatch.setattr(measuring, 'synchronize', clock.synchronize)
    monkeypatch.setattr(measuring, 'machine_peaks', lambda *a, **k: dict(macs_per_second=1., bytes_per_second=1.))
    measuring.run([INCEPTIONNEXT], Setting(mode='infer', batch_size=1, size=32), ('nchw', ), SMALL, rounds=8, warmup=0,
                  memory=False, clock=clock)
    assert all(clock.readings[1000:])
