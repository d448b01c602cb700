"""Sliding windows and test-time augmentation, against mmseg's own."""
import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import SegTTAModel
from mmseg.structures import SegDataSample
from test_segmentor import IMAGES, METAS, assert_same_predictions, fast_and_stock, predict_both, segmentor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inceptionnext_seg import accelerate, restore
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.ops import _triton, dispatch
from inceptionnext_seg.ops.dispatch import FormError
from inceptionnext_seg.ops.windowed_argmax import windowed_argmax
from inceptionnext_seg.segmentation import large
from inceptionnext_seg.segmentation import windows as windows_module
from inceptionnext_seg.segmentation.segmentor import FastSegTTAModel
from inceptionnext_seg.segmentation.windows import Windows, plan_of, predict_windows


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


SLIDES = [dict(crop_size=(40, 40), stride=(24, 24)), dict(crop_size=(32, 128), stride=(32, 80)),
          dict(crop_size=(20, 32), stride=(5, 31)), dict(crop_size=(64, 96), stride=(64, 96)),
          dict(crop_size=(40, 40), stride=(24, 24), windows_at_once=3)]


@pytest.mark.logits_match
@pytest.mark.parametrize('metas', ['as_is', 'resized', 'padded', 'flipped', None])
@pytest.mark.parametrize('slide', SLIDES)
def test_sliding_windows_predict_what_mmseg_does(slide, metas):
    for align_corners in (False, True):
        models = fast_and_stock(test_cfg=dict(mode='slide', **slide), align_corners=align_corners)
        assert models[0].predicts_by_argmax()
        assert_same_predictions(*predict_both(models, IMAGES, metas and METAS[metas]))


def versions(scales=(64, 96), ratios=(0.5, 1., 1.5), image_count=2):
    """Images at several sizes, each as it is and flipped, as ``TestTimeAug`` and a data loader hand them over."""
    data = dict(inputs=[], data_samples=[])
    for ratio in ratios:
        size = [int(n * ratio) for n in scales]
        images = torch.nn.functional.interpolate(IMAGES, size, mode='bilinear')[:image_count]
        for flip in (False, True):
            data['inputs'].append(list(images.flip(3) if flip else images))
            data['data_samples'].append([SegDataSample(metainfo=dict(
                img_shape=tuple(size), ori_shape=(70, 80), flip=flip, flip_direction='horizontal' if flip else None,
                img_path=f'{i}.jpg')) for i in range(image_count)])
    return data


@pytest.mark.logits_match
@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), dict(mode='slide', crop_size=(40, 48), stride=(24, 31))])
def test_the_mean_over_versions_is_that_of_mmseg(test_cfg):
    data = versions()
    # The preprocessor turns images into float32.
    stock = SegTTAModel(segmentor('stock', test_cfg=test_cfg).eval())
    fast = SegTTAModel(segmentor('stock', test_cfg=test_cfg).eval())
    done = accelerate(fast)
    assert isinstance(fast, FastSegTTAModel) and not done.left
    with torch.no_grad():
        found, wanted = (model.test_step(copy.deepcopy(data)) for model in (fast, stock))
    assert len(found) == len(wanted) == 2
    for a, b in zip(found, wanted, strict=True):
        assert a.img_path == b.img_path and a.ori_shape == b.ori_shape and 'seg_logits' not in a
        assert a.pred_sem_seg.data.shape == b.pred_sem_seg.data.shape == (1, 70, 80)
        assert a.pred_sem_seg.data.dtype == b.pred_sem_seg.data.dtype
        assert (a.pred_sem_seg.data == b.pred_sem_seg.data).float().mean() > 0.999
        assert len(a.pred_sem_seg.data.unique()) > 1
    restore(fast)
    assert type(fast) is SegTTAModel


@pytest.mark.parametrize('settings, parts', [
    (dict(test_cfg=dict(mode='slide', crop_size=(40, 48), stride=(24, 31), keep_logits=True)), {}),
    (dict(num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
     {}),
    (dict(), dict(prediction=False))], ids=['keep_logits', 'binary', 'left'])
def test_versions_whose_logits_are_needed_are_averaged_by_mmseg(settings, parts):
    data = versions(image_count=1)
    stock_settings = copy.deepcopy(settings)
    stock_settings.get('test_cfg', {}).pop('keep_logits', None)
    stock, fast = (SegTTAModel(segmentor('stock', **s).eval()) for s in (stock_settings, settings))
    accelerate(fast, **parts)
    with torch.no_grad():
        found, wanted = (model.test_step(copy.deepcopy(data)) for model in (fast, stock))
    assert 'seg_logits' in found[0]
    assert (found[0].pred_sem_seg.data == wanted[0].pred_sem_seg.data).float().mean() > 0.999


def test_another_kind_of_augmentation_gets_logits():
    class Median(SegTTAModel):
        def merge_preds(self, data_samples_list):
            return [torch.stack([sample.seg_logits.data for sample in samples]).median(0).values.argmax(0)
                    for samples in data_samples_list]

    data = versions(image_count=1)
    stock, fast = (Median(segmentor('stock').eval()) for _ in range(2))
    accelerate(fast)
    with torch.no_grad():
        assert torch.equal(fast.test_step(copy.deepcopy(data))[0], stock.test_step(copy.deepcopy(data))[0])


def test_memory_is_that_of_the_rows_of_windows_which_output_rows_need(monkeypatch):
    """Of an image of 30 rows of windows that overlap by half, two are kept."""
    seen = []

    def spy(logits, *args, **kwargs):
        seen.append(logits.shape)
        return windowed_argmax(logits, *args, **kwargs)

    monkeypatch.setattr(windows_module, 'windowed_argmax', spy)
    windows = Windows.sliding((16 * 31, 32), (32, 32), (16, 16))
    assert len(windows.tops) == 30
    asked = []

    def logits_of(corners):
        asked.extend(corners)
        return torch.randn(len(corners), 4, 8, 8)

    found = predict_windows(logits_of, windows, 1, (32, 32), flip='vertical', dtype=torch.uint8)
    assert found.shape == (496, 32) and found.dtype == torch.uint8
    assert asked == [(16 * i, 0) for i in range(30)]
    assert {shape[1] for shape in seen} == {2 * 8}


class HostCopies(TorchDispatchMode):
    """Names of the operators that take a tensor from the host to the meta device, which stands for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)] for tree in ((args, kwargs), out))
        if any(not x.is_meta and x.dim() for x in given) and any(x.is_meta for x in given + made):
            self.found.append(func.name())
        return out


@pytest.mark.parametrize('form', ['triton', 'blocked', 'torch'])
def test_for_the_second_image_of_a_size_no_table_is_copied_to_the_device(form, monkeypatch):
    if form == 'triton':
        pytest.importorskip('triton', reason='triton is not installed')
    monkeypatch.setattr(dispatch, 'is_hollow', lambda x: False)
    monkeypatch.setattr(_triton, 'why_not', lambda device: None)
    windows = Windows.sliding((97, 131), (64, 64), (40, 40))

    def predict():
        for sums in (None, torch.empty(90, 120, 19, device='meta')):
            predict_windows(lambda corners: torch.empty(len(corners), 19, 16, 16, device='meta'), windows, 4, (64, 64),
                            flip='horizontal', ori_shape=(90, 120), sums=sums, impl=form)
    plan_of.cache_clear()
    with _triton.recording(), HostCopies() as first:
        predict()
    with _triton.recording(), HostCopies() as second:
        predict()
    assert first.found and not second.found


def test_a_form_that_cannot_run_is_refused_with_sliding_windows_too():
    model = segmentor('stock', test_cfg=dict(mode='slide', **SLIDES[0])).eval()
    accelerate(model, prediction='triton')
    with pytest.raises(FormError, match=r"'triton'.*cpu"):
        model.predict(IMAGES.float())


@pytest.mark.parametrize('crop_size, stride, told', [
    ((40, 40), (50, 24), 'stride.*50'), ((40, 0), (24, 24), 'crop_size.*0'), ((40, 40), 24, 'stride.*24')])
def test_windows_that_cannot_be_are_told(crop_size, stride, told):
    with pytest.raises(SettingError, match=told):
        Windows.sliding((100, 100), crop_size, stride)


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('head', ['FCNHead', 'ReversedClassesHead'])
def test_a_large_image_is_predicted_as_by_the_sliding_windows_of_mmseg(mode, head, monkeypatch):
    """Window by window from the image as it is stored: 8 bits, BGR, windows that the preprocessor pads."""
    slide = dict(crop_size=(40, 56), stride=(24, 31))
    monkeypatch.setattr(large, 'CROP_SIZE', slide['crop_size'])
    monkeypatch.setattr(large, 'STRIDE', slide['stride'])
    model = segmentor('fast', head=head, test_cfg=dict(mode=mode, **(slide if mode == 'slide' else {}))).eval()
    stock = segmentor('stock', head=head, test_cfg=dict(mode='slide', **slide)).eval()
    # mmseg pads the image and not the windows: without padding both are the same.
    stock.data_preprocessor.test_cfg = model.data_preprocessor.test_cfg = None
    image = torch.randint(0, 256, (3, 150, 131), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sample = SegDataSample(metainfo=dict(img_shape=(150, 131), ori_shape=(170, 121)))
    with torch.no_grad():
        wanted = stock.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_sem_seg.data[0]
    done = []
    found = large.predict_large(model, image, (170, 121), done.append)
    assert found.dtype == torch.uint8 and found.shape == (170, 121)
    assert (found == wanted).float().mean() > 0.999 and len(found.unique()) > 1
    assert sum(done) == 6 * 4


def test_windows_that_the_preprocessor_pads_are_cropped_again():
    model = segmentor('fast', test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(64, 64))).eval()
    image = torch.randint(0, 256, (3, 40, 200), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert model.data_preprocessor.test_cfg['size_divisor'] == 32
    assert large.predict_large(model, image, (40, 200)).shape == (40, 200)


def test_a_head_of_one_channel_has_no_large_images():
    model = segmentor('fast', num_classes=2, out_channels=1, threshold=0.5,
                      loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    with pytest.raises(UserError, match='one channel'):
        large.predict_large(model, torch.zeros(3, 64, 64, dtype=torch.uint8), (64, 64))


def test_a_large_image_is_predicted_by_the_form_that_was_asked_for():
    model = segmentor('stock', test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(64, 64))).eval()
    accelerate(model, prediction='triton')
    with pytest.raises(FormError, match=r"'triton'.*cpu"):
        large.predict_large(model, torch.zeros(3, 64, 128, dtype=torch.uint8), (64, 128))
