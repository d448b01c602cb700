"""Predicting images without annotations, against forward passes by hand, stock mmseg, and hand-made files."""
import contextlib
import importlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from mmseg.datasets import ADE20KDataset
from PIL import Image

from inceptionnext_seg.data import fonts
from inceptionnext_seg.engine import inference as prediction
from inceptionnext_seg.engine import prediction_files
from inceptionnext_seg.engine.inference import Labels, Segmentor, draw_overlay, find_labels, shares
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops.measured import Choices, Pass
from inceptionnext_seg.segmentation import large

REPOSITORY = Path(__file__).parents[2]
CAMVID = REPOSITORY / 'configs/upernet_inceptionnext_a_camvid.py'
MINI = REPOSITORY / 'configs/upernet_inceptionnext_a_mini.py'
ADE20K = REPOSITORY / 'configs/upernet_convnext_t_ade20k.py'
FACTS = Labels(('road', 'sky', 'tree'), np.array([[128, 64, 128], [0, 0, 255], [0, 128, 0]], np.uint8), 0)


def load_tool():
    return importlib.import_module('inceptionnext_seg.cli.predict')


def save_random_weights(config, path, **meta):
    """A checkpoint of a config's model whose predictions differ from pixel to pixel."""
    torch.manual_seed(0)
    model = init_model(Config.fromfile(config), device='cpu')
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture(scope='session')
def camvid_weights(tmp_path_factory):
    return save_random_weights(CAMVID, tmp_path_factory.mktemp('camvid') / 'weights.pth')


@pytest.fixture(scope='session')
def mini_weights(tmp_path_factory):
    return save_random_weights(MINI, tmp_path_factory.mktemp('mini') / 'weights.pth')


@pytest.fixture(scope='session')
def camvid(camvid_weights):
    return Segmentor(Config.fromfile(CAMVID), camvid_weights)


def scene(width=70, height=45, seed=0):
    """An RGB picture of smooth random blobs."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def predict(*arguments):
    """The tool, on the CPU; its exit code."""
    return load_tool().main([*map(str, arguments), '--device', 'cpu'])


def class_numbers(path):
    with Image.open(path) as file:
        assert file.mode == 'L'
        return np.asarray(file)


def test_a_prediction_is_the_argmax_of_a_forward_pass_by_hand(camvid_weights, tmp_path):
    image = scene()
    Image.fromarray(image).save(tmp_path / 'scene.png')
    assert predict(CAMVID, camvid_weights, tmp_path / 'scene.png', '--out', tmp_path / 'out') == 0

    model = init_model(Config.fromfile(CAMVID), device='cpu')
    model.load_state_dict(torch.load(camvid_weights, weights_only=True)['state_dict'])
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        logits = model(((torch.from_numpy(image.astype(np.float32)) - mean) / std).permute(2, 0, 1)[None])
        logits = torch.nn.functional.interpolate(logits, image.shape[:2], mode='bilinear')
    expected = logits.argmax(1)[0].numpy()
    assert len(np.unique(expected)) > 2
    found = class_numbers(tmp_path / 'out/class_numbers/scene.png')
    assert found.shape == expected.shape
    # Where two classes tie to the last bit, the order of the sums decides.
    assert (found == expected).mean() > 0.999


def test_a_config_that_resizes_predicts_what_stock_mmseg_does_at_the_images_own_size(camvid_weights, tmp_path):
    Image.fromarray(scene(61, 83)).save(tmp_path / 'scene.jpg')
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(256, 64), keep_ratio=True),
             dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    cfg = Config.fromfile(CAMVID)
    cfg.test_dataloader.dataset.pipeline = steps
    segmentor = Segmentor(cfg, camvid_weights)
    found = segmentor.predict(segmentor.load(tmp_path / 'scene.jpg'))

    cfg = Config.fromfile(CAMVID)
    cfg.test_pipeline = steps
    stock = init_model(cfg, str(camvid_weights), device='cpu')
    expected = inference_model(stock, str(tmp_path / 'scene.jpg')).pred_sem_seg.data[0].numpy()
    assert found.shape == (83, 61)
    np.testing.assert_array_equal(found, expected)


def test_class_numbers_count_from_one_where_the_data_sets_files_keep_zero_for_unlabelled(
        mini_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene()).save(tmp_path / 'scene.png')
    assert predict(MINI, mini_weights, tmp_path / 'scene.png', '--out', tmp_path / 'out') == 0
    stock = init_model(Config.fromfile(MINI), device='cpu')
    stock.load_state_dict(torch.load(mini_weights, weights_only=True)['state_dict'])
    stock.cfg.test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    expected = inference_model(stock, str(tmp_path / 'scene.png')).pred_sem_seg.data[0].numpy() + 1
    np.testing.assert_array_equal(class_numbers(tmp_path / 'out/class_numbers/scene.png'), expected)
    legend = json.loads((tmp_path / 'out/classes.json').read_text())
    assert [legend[0]['number'], legend[-1]['number']] == [1, 18]
    assert not (tmp_path / 'data').exists()  # the embedded data set was not drawn for it


def test_more_than_255_classes_need_16_bits():
    many = Labels(tuple(map(str, range(256))), np.zeros((256, 3), np.uint8), 0)
    assert many.numbers(np.array([[255]])).dtype == np.uint8
    counted_from_one = many._replace(first_number=1).numbers(np.array([[255]]))
    assert counted_from_one.dtype == np.uint16
    assert counted_from_one[0, 0] == 256


def test_the_embedded_data_sets_labels_are_ade20ks_without_drawing_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = find_labels(Config.fromfile(MINI), {}, 18)
    ade = dict(zip(ADE20KDataset.METAINFO['classes'], ADE20KDataset.METAINFO['palette'], strict=True))
    assert labels.classes[:3] == ('wall', 'building', 'sky')
    assert labels.classes[-1] == 'streetlight'
    for name, color in zip(labels.classes, labels.palette.tolist(), strict=True):
        assert color == ade[name]
    assert labels.first_number == 1
    assert not list(tmp_path.iterdir())


def test_ade20ks_labels_need_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = find_labels(Config.fromfile(ADE20K), {}, 150)
    assert labels.classes == ADE20KDataset.METAINFO['classes']
    assert labels.first_number == 1


def test_labels_of_the_checkpoint_come_before_those_of_the_config():
    cfg = Config.fromfile(CAMVID)
    trained = dict(classes=[f'c{i}' for i in range(11)], palette=[[i, i, i] for i in range(11)], reduce_zero_label=True)
    labels = find_labels(cfg, dict(dataset_meta=trained), 11)
    assert labels.classes[2] == 'c2'
    assert labels.palette[2].tolist() == [2, 2, 2]
    assert labels.first_number == 1


@pytest.mark.parametrize('wrong', [
    dict(classes=['a', 'b']), dict(palette=[[0, 0, 0]]), dict(palette=[[0, 0, 300]] * 11), dict(palette='none'),
    dict(palette=[[0, 0, 0]] * 10 + [[0]]), dict(classes=7)])
def test_labels_of_the_checkpoint_that_do_not_fit_the_model_are_not_used(wrong):
    trained = dict(classes=['x'] * 11, palette=[[0, 0, 0]] * 11, reduce_zero_label=True)
    labels = find_labels(Config.fromfile(CAMVID), dict(dataset_meta=trained | wrong), 11)
    assert labels.classes[0] == 'sky'
    assert labels.palette[1].tolist() == [128, 0, 0]
    assert labels.first_number == 0


def test_a_model_whose_classes_nobody_names_is_an_error():
    with pytest.raises(UserError, match=r'\b7 .*\b11\b.*metainfo'):
        find_labels(Config.fromfile(CAMVID), {}, 7)


def test_shares_are_sorted_and_leave_out_classes_that_were_not_found():
    assert shares(np.array([[2, 2, 0, 2], [0, 2, 2, 4]]), 6) == [(2, 5 / 8), (0, 2 / 8), (4, 1 / 8)]


def test_percentages_never_call_a_class_that_was_found_absent():
    assert [prediction.percentage(share) for share in (1, 0.1234, 0.0006, 1e-6)] == [
        '100.0 %', '12.3 %', '0.1 %', '< 0.1 %']


def test_an_image_above_the_documented_size_is_predicted_by_windows_in_python_and_by_the_tool(
        camvid, camvid_weights, tmp_path, monkeypatch):
    image = scene(200, 150)
    assert (camvid.predict(image) == camvid.classes_of(image)).all()
    monkeypatch.setattr(prediction, 'LARGE_IMAGE', 150 * 200 - 1)
    monkeypatch.setattr(large, 'CROP_SIZE', (96, 96))
    monkeypatch.setattr(large, 'STRIDE', (64, 64))
    found = camvid.predict(image[..., ::-1])
    assert found.dtype == np.int64 and found.shape == (150, 200) and camvid.classes_of(image).dtype == np.uint8
    slides = Segmentor(Config.fromfile(CAMVID), camvid_weights)
    slides.model.test_cfg.update(mode='slide', crop_size=(96, 96), stride=(64, 64))
    data = slides.pipeline(dict(img=image[..., ::-1]))
    with torch.no_grad():
        expected = slides.model.test_step(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
    assert (found == expected[0].pred_sem_seg.data[0].numpy()).mean() > 0.999
    Image.fromarray(image).save(tmp_path / 'scene.png')
    assert predict(CAMVID, camvid_weights, tmp_path / 'scene.png', '--out', tmp_path / 'out') == 0
    assert (class_numbers(tmp_path / 'out/class_numbers/scene.png') == found).all()


def test_an_overlay_blends_the_image_with_the_colours_and_shows_those_of_the_classes_found_in_the_legend():
    image = np.zeros((60, 80, 3), np.uint8)
    image[...] = (10, 20, 200)  # BGR
    classes = np.zeros((60, 80), np.int64)
    classes[:20] = 1
    overlay = np.asarray(draw_overlay(image, classes, FACTS, opacity=0.25))
    assert overlay[0, 0].tolist() == [150, 15, 71]  # 0.75 × (200, 20, 10) + 0.25 × (0, 0, 255), of 71.25
    assert overlay[59, 79].tolist() == [182, 31, 40]  # + 0.25 × (128, 64, 128), of 39.5
    legend = overlay[:, 80:].reshape(-1, 3)
    swatches = {name: np.flatnonzero((legend == color).all(1)) for name, color in zip(
        FACTS.classes, FACTS.palette, strict=True)}
    assert len(swatches['road']) > 100 < len(swatches['sky'])
    assert len(swatches['tree']) == 0
    assert swatches['road'][0] < swatches['sky'][0]  # two thirds above one third


@pytest.mark.parametrize(('width', 'height'), [(1, 1), (24, 500), (500, 24), (1600, 1200)])
@pytest.mark.parametrize('found', [1, 150])
def test_a_legend_is_legible_beside_an_image_of_any_size(width, height, found, monkeypatch):
    names, palette = ADE20KDataset.METAINFO['classes'], np.array(ADE20KDataset.METAINFO['palette'], np.uint8)
    sizes = []
    legend_font = prediction.legend_font
    monkeypatch.setattr(prediction, 'legend_font', lambda size: sizes.append(size) or legend_font(size))
    classes = np.resize(np.arange(found), (height, width))
    overlay = draw_overlay(np.full((height, width, 3), 90, np.uint8), classes, Labels(names, palette, 1), 0)
    assert overlay.height >= height
    assert overlay.width > width
    assert np.asarray(overlay)[:height, :width].min() == np.asarray(overlay)[:height, :width].max() == 90
    assert sizes[0] >= max(14, max(width, height) / 80)
    border = np.concatenate([np.asarray(overlay)[-1, width:], np.asarray(overlay)[:, -1]])
    assert (border == 255).all()  # nothing is cut off


def test_a_legend_shows_accents_greek_and_cyrillic():
    font = prediction.legend_font(20)
    missing = bytes(font.getmask('\uffff'))
    assert [letter for letter in 'éßłΩЖ<—' if bytes(font.getmask(letter)) == missing] == []


def test_a_legend_is_drawn_without_the_font_of_matplotlib_too(monkeypatch):
    monkeypatch.setattr(fonts, 'dejavu_sans', lambda: None)
    labels = Labels(('road', 'sky'), FACTS.palette[:2], 0)
    overlay = draw_overlay(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), int), labels)
    assert len(np.unique(np.asarray(overlay)[:, 60:].reshape(-1, 3), axis=0)) > 3  # white, black, the swatch, letters


def test_images_of_every_mode_are_segmented_as_their_rgb_conversion(camvid, tmp_path):
    rgb = Image.fromarray(scene())
    grey = np.asarray(rgb.convert('L'))
    rgba = rgb.copy()
    rgba.putalpha(7)
    palette = rgb.quantize(200)
    cases = dict(
        rgb=(rgb, np.asarray(rgb)), grey=(rgb.convert('L'), np.stack([grey] * 3, -1)), rgba=(rgba, np.asarray(rgb)),
        palette=(palette, np.asarray(palette.convert('RGB'))),
        deep=(Image.fromarray(grey.astype(np.uint16) * 256), np.stack([grey] * 3, -1)))
    for name, (picture, expected) in cases.items():
        picture.save(tmp_path / f'{name}.png')
        found = camvid.load(tmp_path / f'{name}.png')
        np.testing.assert_array_equal(found[..., ::-1], expected, err_msg=name)


def test_class_numbers_and_overlay_are_both_upright_by_the_exif_orientation(camvid_weights, tmp_path):
    upright = scene(64, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn clockwise to show
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / 'turned.png', exif=exif)
    Image.fromarray(upright).save(tmp_path / 'upright.png')
    assert predict(CAMVID, camvid_weights, tmp_path, '--out', tmp_path / 'out') == 0
    numbers = [class_numbers(tmp_path / f'out/class_numbers/{name}.png') for name in ('turned', 'upright')]
    assert numbers[0].shape == (40, 64)
    np.testing.assert_array_equal(*numbers)
    with Image.open(tmp_path / 'out/overlays/turned.png') as turned, \
            Image.open(tmp_path / 'out/overlays/upright.png') as expected:
        np.testing.assert_array_equal(turned, expected)


def test_unreadable_images_are_reported_and_the_others_written(camvid_weights, tmp_path, capsys):
    photos = tmp_path / 'photos'
    (photos / 'sub').mkdir(parents=True)
    Image.fromarray(scene(40, 33)).save(photos / 'sub/good.jpg')
    Image.fromarray(scene(40, 31)).save(photos / 'tiny.png')
    whole = (photos / 'sub/good.jpg').read_bytes()
    (photos / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (photos / 'empty.png').touch()
    (photos / 'text.png').write_text('no image')
    assert predict(CAMVID, camvid_weights, photos, '--out', tmp_path / 'out') == 1
    found = capsys.readouterr()
    assert '1 of 5 ' in found.out
    reports = [line for line in found.err.splitlines() if line.startswith('not segmented')]
    assert [Path(line.split()[2]).name for line in reports] == ['cut.jpg', 'empty.png', 'text.png', 'tiny.png']
    assert '31×40' in reports[3]
    written = sorted(str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.*'))
    assert written == ['class_numbers/sub/good.png', 'classes.json', 'overlays/sub/good.png', 'predict.json']
    assert class_numbers(tmp_path / 'out/class_numbers/sub/good.png').shape == (33, 40)


def test_a_failed_write_is_an_error_and_leaves_no_part_of_a_file(tmp_path):

    class Full:

        def save(self, path, **settings):
            path.write_bytes(b'half')
            raise OSError(28, 'No space left on device')

    with pytest.raises(UserError, match=r'a\.png.*No space left'):
        prediction.save_png(Full(), tmp_path / 'a.png')
    assert not list(tmp_path.iterdir())


def test_a_picture_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """Or `--resume` would take what a power cut left of it for whole: its text stands before its pixels."""
    kept = []
    path = tmp_path / 'a.png'
    monkeypatch.setattr('inceptionnext_seg.files.synchronize', lambda part: kept.append((part, path.exists())))
    prediction.save_png(Image.new('L', (9, 9)), path, made_with='x')
    assert [there for _, there in kept] == [False, True] and kept[1][0] == tmp_path


def test_what_a_user_can_get_wrong_is_one_message_and_exit_code_2(camvid_weights, tmp_path, capsys):
    image, empty, text = tmp_path / 'a.png', tmp_path / 'empty', tmp_path / 'notes.txt'
    Image.fromarray(scene(32, 32)).save(image)
    empty.mkdir()
    text.touch()
    out = tmp_path / 'out'
    (out / 'overlays').mkdir(parents=True)
    Image.fromarray(scene(32, 32)).save(out / 'overlays/old.png')
    (out / 'predict.json').write_text('{}')     # a folder of predictions
    cases = [
        ((CAMVID, camvid_weights, tmp_path / 'missing.jpg', '--out', out), r'missing\.jpg'),
        ((CAMVID, camvid_weights, empty, '--out', out), '/empty'),
        ((CAMVID, camvid_weights, text, '--out', out), r'notes\.txt.*\.jpg'),
        ((CAMVID, camvid_weights, out / 'overlays/old.png', '--out', out), r'old\.png.*--out'),
        ((CAMVID, camvid_weights, image, '--out', text), r'notes\.txt/.*--out'),
        ((CAMVID, tmp_path / 'no.pth', image, '--out', out), r'no\.pth'),
        ((tmp_path / 'no.py', camvid_weights, image, '--out', out), r'no\.py'),
        ((MINI, camvid_weights, image, '--out', out), r'decode_head\.conv_seg'),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stop:
            predict(*arguments)
        found = capsys.readouterr().err
        assert stop.value.code == 2, found
        assert 'Traceback' not in found
        assert re.search(f'error: .*{message}', found), found


@pytest.mark.parametrize('name', ['cuda:99', 'nonsense', 'meta'])
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(name):
    with pytest.raises(UserError, match=rf"'{name}'.*\bcpu\b"):
        prediction.open_device(name)


def test_an_opacity_out_of_range_is_refused(capsys):
    with pytest.raises(SystemExit):
        load_tool().parse_args(['config', 'checkpoint', 'image', '--out', 'out', '--opacity', '1.5'])
    assert '1.5' in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_cuda_predicts_what_the_cpu_does(camvid, camvid_weights):
    image = scene(96, 64)
    found = Segmentor(Config.fromfile(CAMVID), camvid_weights, prediction.open_device()).predict(image)
    assert (found == camvid.predict(image)).mean() > 0.99


@pytest.mark.parametrize(('count', 'measure'), [(2, True), (3, True), (3, False)])
def test_of_many_images_the_first_that_can_be_read_is_where_operators_are_measured(
        tmp_path, monkeypatch, capsys, count, measure):
    monkeypatch.setattr(prediction_files, 'MEASURED_FROM', 3)
    seen, inside = [], []

    @contextlib.contextmanager
    def measuring():
        inside.append(True)
        try:
            yield Pass(Choices(), [0.25], ['norm_mlp'], [], 20., set())
        finally:
            inside.pop()

    monkeypatch.setattr(prediction_files, 'measuring', measuring)

    def predict(path):
        if path.name == '0.png':
            raise OSError('cut short')
        seen.append(bool(inside))
        return prediction_files.Predicted(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int64))

    paths = [Path(f'{i}.png') for i in range(count)]
    files = prediction_files.PredictionFiles(tmp_path, FACTS)
    outcome = prediction_files.predict_files(predict, {path: path for path in paths}, files, measure=measure)
    assert list(outcome.failures) == paths[:1]
    assert seen == [count == 3 and measure, False][:count - 1]
    assert ('0 operators measured in 0.2 s' in capsys.readouterr().out) == seen[0]
