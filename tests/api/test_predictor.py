"""load and predict, against stock MMSegmentation's inference_model."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.apis import inference_model, init_model
from PIL import Image

from inceptionnext_seg import load
from inceptionnext_seg.api.predictor import Prediction, Strips
from inceptionnext_seg.engine.inference import Labels
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.segmentation.windows import Windows
from inceptionnext_seg.zoo import find_config

NAME = 'upernet_inceptionnext_a_camvid'


def scene(width=70, height=45, seed=0):
    """An RGB picture of smooth random blobs."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module', params=['softmax', 'sigmoid'])
def stock(request, tmp_path_factory):
    """MMSegmentation's model with random weights, its config, and their file."""
    cfg = Config.fromfile(find_config(NAME))
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.channels = 16
        if request.param == 'sigmoid':
            head.update(num_classes=2, out_channels=1, threshold=0.3, loss_decode=dict(
                type='CrossEntropyLoss', use_sigmoid=True))
            cfg.test_dataloader.dataset.metainfo = dict(classes=('ground', 'road'), palette=[[0, 0, 0], [128, 64, 128]])
    # Images are resized, so that logits are resized twice.
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(96, 64), keep_ratio=True))
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline    # where inference_model looks
    torch.manual_seed(0)
    model = init_model(cfg, device='cpu')
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    path = tmp_path_factory.mktemp('stock') / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return model, cfg, path


@pytest.fixture(scope='module')
def predictor(stock):
    return load(stock[1], stock[2], 'cpu')


def assert_predicts(found, stock, image):
    expected = inference_model(stock, image[..., ::-1].copy())
    logits = expected.seg_logits.data
    if len(logits) == 1:    # there mmseg keeps the probability
        logits = logits.logit()
    assert found.classes.shape == image.shape[:2] and found.classes.dtype == np.uint8
    assert np.abs(found.logits - logits.numpy()).max() < 1e-5 * logits.abs().max()
    if len(logits) == 1:
        logits = torch.cat((torch.zeros_like(logits), logits))
        expected_confidence = logits.softmax(0).gather(0, expected.pred_sem_seg.data.long())[0]
    else:
        expected_confidence = logits.softmax(0).amax(0)
    assert (found.classes == expected.pred_sem_seg.data[0].numpy()).mean() > 0.999
    np.testing.assert_allclose(found.confidence, expected_confidence, atol=1e-3)
    entropy = torch.distributions.Categorical(logits=logits.movedim(0, -1)).entropy()
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-4)
    assert sum(found.shares.values()) == pytest.approx(1)
    largest = next(iter(found.shares))
    assert found.shares[largest] == (found.classes == found.labels.classes.index(largest)).mean()


def test_a_prediction_is_that_of_mmsegmentation_whatever_the_blocks_of_rows(stock, predictor, monkeypatch):
    image = scene()
    assert_predicts(predictor.predict(image, logits=True), stock[0], image)
    monkeypatch.setattr('inceptionnext_seg.api.predictor.BLOCK', 11 * 70 * 7)
    assert_predicts(predictor.predict(image, logits=True), stock[0], image)


@pytest.mark.parametrize('size', [(70, 45), (130, 150), (33, 64), (64, 30)])
def test_windows_are_those_of_mmsegmentations_slide(stock, predictor, monkeypatch, size):
    """In blocks of few rows, so that rows are used while later windows are still to come."""
    monkeypatch.setattr('inceptionnext_seg.api.predictor.BLOCK', 11 * 70 * 3)
    monkeypatch.setattr(stock[0], 'test_cfg', ConfigDict(mode='slide', crop_size=(33, 33), stride=(22, 22)))
    image = scene(*size)
    for batch_size in (1, 4):
        assert_predicts(predictor.predict(image, logits=True, window=33, batch_size=batch_size), stock[0], image)


def test_of_windows_two_rows_are_kept_however_high_the_image_is():
    windows = Windows.sliding((1000, 100), (33, 33), (22, 22))
    strips = Strips(windows, torch.zeros(1, 5, 9, 9), (0, 0, 0, 0), (1000, 100), False)
    assert strips.maps.shape == (2, 9, len(windows.lefts), 9, 5)
    ready = [strips.ready(row) for row in range(len(windows.tops))]
    assert ready[-1] == 1000 and ready == sorted(ready) and 0 < ready[0] < 33


def test_an_image_that_is_large_after_its_pipeline_takes_windows_too(predictor, monkeypatch):
    image = scene(70, 90)       # which the pipeline makes 64×82
    expected, whole = predictor.predict(image, window=33), predictor.predict(image)
    monkeypatch.setattr('inceptionnext_seg.segmentation.large.CROP_SIZE', (33, 33))
    monkeypatch.setattr('inceptionnext_seg.segmentation.large.STRIDE', (22, 22))
    inputs = predictor.prepare(image)[2]['inputs']
    for large, prediction in ((inputs[0].numel(), whole), (inputs[0].numel() - 1, expected)):
        monkeypatch.setattr('inceptionnext_seg.api.predictor.LARGE_IMAGE', large)
        assert np.array_equal(predictor.predict(image).entropy, prediction.entropy)
    assert inputs.shape[1:] != image.shape[:2] and not np.array_equal(whole.entropy, expected.entropy)


def test_windows_of_a_config_that_leave_gaps_are_refused_not_divided_by_zero(predictor, monkeypatch):
    monkeypatch.setattr(predictor.model, 'test_cfg', ConfigDict(mode='slide', crop_size=(33, 33), stride=(40, 40)))
    with pytest.raises(UserError, match=r'cannot be segmented: model\.test_cfg\.stride is \(40, 40\)'):
        predictor.predict(scene())


def test_an_array_a_picture_and_a_file_are_one_image(predictor, tmp_path):
    image = scene()
    Image.fromarray(image).save(tmp_path / 'image.png')
    expected = predictor.predict(image)
    assert expected.logits is None and expected.path is None
    for source in (Image.fromarray(image), tmp_path / 'image.png', str(tmp_path / 'image.png')):
        assert np.array_equal(predictor.predict(source).entropy, expected.entropy)
    grey = image[..., 0]
    assert np.array_equal(predictor.predict(grey).classes, predictor.predict(np.stack([grey] * 3, 2)).classes)


def test_a_folder_is_its_images_in_order_and_a_batch_of_one_size_gives_what_each_gives(predictor, tmp_path):
    (tmp_path / 'deep').mkdir()
    sizes = {'a.png': (70, 45), 'b.JPG': (70, 45), 'c.png': (45, 70), 'deep/d.png': (70, 45)}
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(scene(*size, seed)).save(tmp_path / name)
    (tmp_path / 'c2.png').write_bytes(b'none')
    (tmp_path / 'notes.txt').touch()
    with pytest.warns(UserWarning, match=r'c2\.png cannot be read'):
        found = list(predictor.predict(tmp_path, batch_size=3, on_error='warn'))
    assert [prediction.path.relative_to(tmp_path).as_posix() for prediction in found] == list(sizes)
    for prediction in found:
        np.testing.assert_allclose(prediction.entropy, predictor.predict(prediction.path).entropy, atol=1e-4)
    with pytest.raises(UserError, match=r'c2\.png cannot be read'):
        list(predictor.predict(tmp_path))


def test_a_prediction_is_saved_as_class_indices_and_shown_as_an_overlay(predictor, tmp_path):
    found = predictor.predict(scene())
    found.save(tmp_path / 'out/classes.png')
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out/classes.png')), found.classes)
    assert found.overlay(0.0).crop((0, 0, 70, 45)).tobytes() == Image.fromarray(scene()).tobytes()


def test_with_warn_each_image_of_a_folder_that_cannot_be_segmented_is_named_and_the_others_come(predictor, tmp_path):
    for name, size in (('a.png', (70, 45)), ('b.png', (400, 8)), ('c.png', (400, 8)), ('d.png', (5000, 2)),
                       ('f.png', (70, 45))):
        Image.fromarray(scene(*size)).save(tmp_path / name)
    (tmp_path / 'e.heic').touch()
    with pytest.warns(UserWarning, match='cannot be') as warned:
        found = list(predictor.predict(tmp_path, batch_size=3, on_error='warn'))
    assert [prediction.path.name for prediction in found] == ['a.png', 'f.png']
    assert sorted(str(warning.message).split(' cannot be')[0] for warning in warned) == [
        str(tmp_path / name) for name in ('b.png', 'c.png', 'd.png', 'e.heic')]
    with pytest.raises(UserError, match=r'b\.png cannot be segmented: .*2×96 pixels'):
        list(predictor.predict(tmp_path))


@pytest.mark.parametrize(('source', 'settings', 'message'), [
    (Image.fromarray(np.zeros((40, 40), np.uint16)), {}, 'mode I;16.*8'),
    (np.zeros((40, 40, 3)), {}, r'float64; expected: \(H, W, 3\)'), (3, {}, 'is a int'),
    (np.zeros((40, 40, 4), np.uint8), {}, r'\(40, 40, 4\)'), ('none.jpg', {}, 'none.jpg cannot be read'),
    (np.zeros((12, 400, 3), np.uint8), {}, 'the image cannot be segmented: .*3×96 pixels'),
    (np.zeros((40, 40, 3), np.uint8), dict(window=8), 'window is 8; expected: an integer, at least 32'),
    (np.zeros((40, 40, 3), np.uint8), dict(window=33.5), 'window is 33.5; expected: an integer'),
    (np.zeros((40, 40, 3), np.uint8), dict(batch_size=1.5), 'batch_size is 1.5; expected: an integer, at least 1'),
    (np.zeros((40, 40, 3), np.uint8), dict(on_error='skip'), "'skip'")])
def test_what_is_no_image_is_one_message(predictor, source, settings, message):
    with pytest.raises((UserError, SettingError, TypeError), match=message):
        predictor.predict(source, **settings)


def test_classes_of_one_name_add_up_in_the_shares():
    labels = Labels(('wall', 'grass', 'grass'), np.zeros((3, 3), np.uint8), 0)
    found = Prediction(np.array([[0, 0, 1, 2, 2]], np.uint8), None, None, None, labels, None, None)
    assert list(found.shares.items()) == [('grass', pytest.approx(.6)), ('wall', pytest.approx(.4))]


def test_an_empty_folder_is_one_message(predictor, tmp_path):
    with pytest.raises(UserError, match='no image in the folder'):
        predictor.predict(tmp_path)
