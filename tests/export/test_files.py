"""inceptionnext-seg export: what is written, run in its runtime on images that the export did not see."""
import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from inceptionnext_seg import create_model
from inceptionnext_seg.cli import export as tool
from inceptionnext_seg.data.mini import CLASSES_USED, draw_scene
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.export import fastest, files, proof
from inceptionnext_seg.export.fastest import choose, seconds_a_call
from inceptionnext_seg.export.files import Runtime
from inceptionnext_seg.export.proof import labelled_images, miou

from .models import SHALLOW, sensitive

ARCH = f"arch={SHALLOW['backbone']['arch']}"
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config file, a checkpoint of it, and its model."""
    folder = tmp_path_factory.mktemp('export')
    config = folder / 'small.py'
    config.write_text("_base_ = ['inceptionnext_seg::_base_/../upernet_inceptionnext_a_mini.py']\n"
                      f"model = dict(backbone=dict(_delete_=True, type='InceptionNeXt', {ARCH}, "
                      "out_norm_cfg=dict(type='BN')), decode_head=dict(channels=16))\n")
    model = sensitive(create_model(config, 7, accelerate=False))
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    return config, folder / 'weights.pth', model


@pytest.fixture
def export(trained, monkeypatch, capsys):
    if not files.can_export():
        pytest.skip(f'torch {torch.__version__} cannot export')

    def run(*arguments):
        config, weights, _ = trained
        monkeypatch.setattr('sys.argv', ['export', str(config), str(weights), *map(str, arguments)])
        try:
            tool.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


def test_what_the_config_does_before_the_network_is_said_since_the_file_does_not(root):
    name = 'upernet_inceptionnext_t_ade20k.py'
    upright, resize, windows = tool.before_the_file(Config.fromfile(root / 'configs' / name))
    assert 'upright by its EXIF tag' in upright and 'windows of 512×512' in windows
    # mmcv's rescale_size takes no heed of which of the two is the width.
    assert 'its longer side has 2048 pixels or its shorter one 512' in resize and '×' not in resize
    cfg = Config.fromfile(root / 'configs/upernet_inceptionnext_a_camvid.py')
    assert tool.before_the_file(cfg) == [upright]
    cfg.merge_from_dict({'test_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=512), dict(type='Resize', scale_factor=0.5),
        dict(type='ResizeToMultiple', size_divisor=32), dict(type='PackSegInputs')]})
    _, square, half, multiple = tool.before_the_file(cfg)
    assert '512×512 (width×height) first' in square
    assert 'Resize(scale_factor=0.5) first' in half and 'ResizeToMultiple(size_divisor=32) first' in multiple
    for settings, text in ((dict(size_divisor=32), 'to a multiple of 32 pixels'), (dict(size=(64, 96)), 'to 64×96 ')):
        cfg.model.data_preprocessor.test_cfg = settings
        assert f'pads an image on its right and below {text}' in tool.before_the_file(cfg)[-1]


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_dynamic_onnx_file_takes_any_batch_height_and_width(trained, export, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    path = tmp_path / 'out.onnx'
    code, out, err = export('--out', path, '--preprocess', '--postprocess', '--form', 'factorized')
    assert code == 0, err
    assert out.count('% of the pixels have the same class') == 3
    assert 'running it on drawn scenes (--images DIR: on yours), 3 sizes.' in out
    session = runtime.InferenceSession(path)
    assert [node.shape for node in (*session.get_inputs(), *session.get_outputs())] == [
        ['batch', 'height', 'width', 3], *[['batch', 'height', 'width']] * 2]
    for shape in ((1, 64, 64), (3, 77, 150), (2, 131, 68)):
        images = random_images(*shape)
        classes, confidence = session.run(None, {'images': images})
        with torch.no_grad():
            expected = trained[2](torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1)
        assert (classes == expected.argmax(1).numpy()).mean() > 0.999
        np.testing.assert_allclose(confidence, expected.amax(1), atol=1e-4)


@pytest.mark.parametrize(('kind', 'suffix'), [('openvino', '.xml'), ('torch-export', '.pt2')])
def test_a_file_of_one_size_gives_the_logits_of_the_model(trained, export, tmp_path, kind, suffix):
    if kind == 'openvino':
        pytest.importorskip('openvino')
        pytest.importorskip('onnxscript')
    code, out, err = export('--format', kind, '--size', '75x98', '--out', tmp_path / f'out{suffix}')
    assert code == 0, err
    size = sum(path.stat().st_size for path in tmp_path.iterdir()) / 2**20
    assert f'({size:.0f} MiB)' in out and round(size) > 1, 'the weights count, also those in a file of their own'
    assert ('INFERENCE_PRECISION_HINT=f32' in out) == (kind == 'openvino')
    expected = ['out.bin', 'out.xml'] if kind == 'openvino' else ['out.pt2']
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    inputs = trained[2].normalize(torch.from_numpy(random_images(1, 75, 98)).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = trained[2](inputs).numpy()
    found, = Runtime(tmp_path / f'out{suffix}', kind)(np.ascontiguousarray(inputs.numpy()))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(('config', 'name'), [
    ('folder/mine.v2.py', 'mine.v2.onnx'),
    ('inceptionnext_seg::upernet_inceptionnext_a_mini', 'upernet_inceptionnext_a_mini.onnx')])
def test_a_file_has_the_whole_name_of_its_config(monkeypatch, config, name):
    """Configs whose names differ after a dot would overwrite each other's."""
    def stop(*arguments):
        raise UserError(str(arguments[0]))

    monkeypatch.setattr('sys.argv', ['export', config, 'weights.pth'])
    monkeypatch.setattr(tool, 'require_packages', lambda *arguments: None)
    monkeypatch.setattr(tool, 'load_config', lambda *arguments: Config())
    for function in ('create_model', 'Graph', 'proof'):
        monkeypatch.setattr(tool, function, MagicMock())
    monkeypatch.setattr(tool, 'replacing', stop)
    with pytest.raises(UserError, match=f'^{re.escape(name)}$'):
        tool.main.__wrapped__()


def test_a_path_that_cannot_be_written_is_one_message(export, tmp_path):
    (tmp_path / 'folder.pt2').mkdir()
    (tmp_path / 'file').touch()
    for path, message in (
            ('folder.pt2', r'folder\.pt2, which is a folder'), ('file/out.pt2', r'cannot write .*out\.pt2')):
        code, _, err = export('--format', 'torch-export', '--size', '64x96', '--out', tmp_path / path)
        assert code == 2 and re.search(f'^error: .*{message}', err, re.M), err


def test_a_file_that_computes_something_else_is_an_error_and_replaces_nothing(export, tmp_path, monkeypatch):
    def write_another(graph, *arguments):
        with torch.no_grad():
            graph.head.fusion.taps1.mul_(1.1)
        write(graph, *arguments)

    write = tool.write
    monkeypatch.setattr(tool, 'write', write_another)
    path = tmp_path / 'out.pt2'
    path.write_text('before')
    code, _, err = export('--format', 'torch-export', '--size', '64x96', '--out', path)
    assert code == 2
    assert 'does not compute what the model does' in err
    assert [file.name for file in tmp_path.iterdir()] == ['out.pt2'] and path.read_text() == 'before'


def test_the_fastest_form_is_found_in_turns_and_kept(export, tmp_path, monkeypatch):
    order = []

    def time_each(runs, inputs):
        assert inputs.shape == (1, 3, 75, 98) and list(runs) == ['plain', 'factorized', 'winograd']
        outputs = [run(inputs)[0] for run in runs.values()]
        assert all(np.abs(output - outputs[0]).max() < 1e-4 * np.abs(outputs[0]).max() for output in outputs)
        return dict(plain=2., factorized=1., winograd=0.97)

    monkeypatch.setattr(fastest, 'seconds_a_call', time_each)
    path = tmp_path / 'out.pt2'
    code, out, err = export('--format', 'torch-export', '--size', '75x98', '--form', 'fastest', '--out', path)
    assert code == 0, err
    assert 'plain 2, factorized 1, winograd 0.97; factorized is kept.' in out and 'torch-export, factorized' in out
    assert [file.name for file in tmp_path.iterdir()] == ['out.pt2']
    monkeypatch.undo()
    ticks = iter([0, 3, 3, 4, 4, 7, 7, 12, 12, 13, 13, 14])
    runs = dict(slow=lambda inputs: order.append('slow'), fast=lambda inputs: order.append('fast'))
    assert seconds_a_call(runs, None, 3, lambda: next(ticks)) == dict(slow=3, fast=1)
    assert order == ['slow', 'fast'] * 4
    assert choose(dict(plain=1.0, factorized=0.96)) == 'plain' and choose(dict(plain=1.0, factorized=0.9)) != 'plain'


@pytest.mark.skipif(not files.can_export(), reason=f'torch {torch.__version__} cannot export')
def test_a_head_without_a_rewritten_graph_has_no_form_to_choose(tmp_path, monkeypatch, capsys):
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=create_model('fpn_inceptionnext_a_mini', accelerate=False).state_dict()), weights)
    for form in ('fastest', 'factorized'):
        monkeypatch.setattr('sys.argv', ['export', 'fpn_inceptionnext_a_mini', str(weights), '--format', 'torch-export',
                                         '--size', '64x64', '--form', form, '--out', str(tmp_path / f'{form}.pt2')])
        tool.main()
        out = capsys.readouterr().out
        assert 'Written as it was trained' in out and 'torch-export, plain' in out


def test_labels_of_a_data_set_with_some_classes_of_another_are_numbered_as_in_its_files(export, pictures, tmp_path):
    names = ['sky', 'wall', 'car', 'tree', 'road', 'fence', 'person']
    for path in (pictures / 'labels').iterdir():
        numbers = np.array([0, *map(CLASSES_USED.get, names)], np.uint8)[np.asarray(Image.open(path))]
        Image.fromarray(numbers).save(tmp_path / path.name)
    code, out, err = export(
        '--format', 'torch-export', '--size', '96x128', '--out', tmp_path / 'out.pt2', '--images', pictures / 'images',
        '--labels', tmp_path, '--cfg-options', f'test_dataloader.dataset.metainfo={dict(classes=names)}')
    assert code == 0, err
    assert 'in torch 100.00 %' in out


@pytest.fixture(scope='module')
def pictures(trained, tmp_path_factory):
    """Folders of four images and of what the model says of them, so that its own mIoU is 100."""
    folder = tmp_path_factory.mktemp('pictures')
    for name in ('images', 'labels'):
        (folder / name).mkdir()
    for seed in range(4):
        image = draw_scene(seed, (96, 128))[0]
        with torch.no_grad():
            label = trained[2](torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2)).argmax(1)[0]
        Image.fromarray(image).save(folder / 'images' / f'{seed}.png')
        Image.fromarray((label + 1).byte().numpy()).save(folder / 'labels' / f'{seed}.png')
    return folder


@pytest.mark.parametrize(('kind', 'suffix', 'rounding'), [
    ('onnx', '.onnx', b'QuantizeLinear'), ('openvino', '.xml', b'FakeQuantize')])
def test_an_int8_file_is_proved_by_equal_pixels_and_miou(
        export, pictures, tmp_path, monkeypatch, kind, suffix, rounding):
    for package in ('onnxscript', 'onnxruntime', *(('openvino', 'nncf') if kind == 'openvino' else ())):
        pytest.importorskip(package)
    # Random weights, which every layer's rounding moves; a trained model's file stays within the limits.
    monkeypatch.setitem(proof.LEAST_EQUAL, 'int8', 0.5)
    monkeypatch.setattr(proof, 'MOST_OFF', 50)
    code, out, err = export(
        '--format', kind, '--dtype', 'int8', '--size', '96x128', '--out', tmp_path / f'out{suffix}',
        '--calibration', pictures / 'images', '--images', pictures / 'images', '--labels', pictures / 'labels')
    assert code == 0, err
    assert f'running it on images of {pictures / "images"}, 1 size.' in out
    assert '4 labelled images' in out and 'in torch 100.00 %' in out
    assert rounding in (tmp_path / f'out{suffix}').read_bytes()


@pytest.mark.parametrize('off', [-0.6, 0.6])
def test_a_file_whose_miou_is_off_by_more_than_the_limit_is_an_error(export, pictures, tmp_path, monkeypatch, off):
    """Not below alone: one that scores more computes something else too."""
    pytest.importorskip('openvino')
    monkeypatch.setattr(proof, 'accuracy', lambda *args: proof.Accuracy(4, 50., 50. + off, 99.))
    monkeypatch.setitem(proof.LEAST_EQUAL, 'bf16', 0.9)
    code, out, err = export(
        '--format', 'openvino', '--dtype', 'bf16', '--size', '96x128', '--out', tmp_path / 'out.xml',
        '--images', pictures / 'images', '--labels', pictures / 'labels')
    assert code == 2 and '0.5 points of mIoU' in err and 'Next: --dtype fp32' in err, out
    assert not any(tmp_path.iterdir())


class Brightness:
    """A model whose class of a pixel is whether it is bright."""

    def normalize(self, images):
        return images.float() / 255

    def __call__(self, inputs):
        return torch.stack([inputs.mean(1), 1 - inputs.mean(1)], 1)


@pytest.mark.parametrize(('count', 'size'), [(3, (96, 64)), (2, (96, 64)), (1, (96, 64)), (1, (16, 300)), (3, (9, 9))])
def test_a_file_of_any_size_is_proved_in_three_whatever_the_images(tmp_path, count, size):
    for i in range(count):
        Image.new('RGB', size).save(tmp_path / f'{i}.png')
    batches = proof.samples(tmp_path, None, 1)
    assert [len(batch) for batch in batches] == [2, 1, 1]
    assert len({batch.shape[1:3] for batch in batches}) == 3
    assert all(side >= files.SMALLEST for batch in batches for side in batch.shape[1:3])


@pytest.mark.parametrize('size', [(64, 96), None])
def test_a_file_that_mixes_the_images_of_a_batch_does_not_pass(size):
    model, batches = Brightness(), proof.samples(None, size, 3)

    def right(inputs):
        return [model(torch.from_numpy(inputs)).numpy()]

    def mixed(inputs):
        return [right(inputs)[0][::-1]]

    assert all(found.passes for found in proof.compare(model, right, batches, False, False))
    found = proof.compare(model, mixed, [batch for batch in batches if len(batch) > 1], False, False)
    assert found and not any(each.passes for each in found)


class OneLogit(Brightness):
    """The same, with one logit a pixel: a brightness above one half is the second class."""
    num_classes, decode_head = 1, SimpleNamespace(threshold=0.5)

    def __call__(self, inputs):
        return inputs.mean(1, keepdim=True) - 0.5


@pytest.mark.parametrize('dtype', ['bf16', 'int8'])
def test_classes_of_one_logit_are_compared_on_both_sides_of_the_threshold(dtype):
    model, batches = OneLogit(), proof.samples(None, (64, 96), 1)

    def right(inputs):
        return [model(torch.from_numpy(inputs)).numpy()]

    def wrong(inputs):
        return [-right(inputs)[0]]

    assert all(found.passes for found in proof.compare(model, right, batches, False, False, dtype))
    assert not any(found.passes for found in proof.compare(model, wrong, batches, False, False, dtype))
    image = batches[0][0]
    pairs = [(image, (image / 255.).mean(2) > 0.5)] * 2
    assert proof.accuracy(model, right, pairs, False, False).file > 99.
    assert not proof.accuracy(model, wrong, pairs, False, False).passes


@pytest.mark.parametrize('count', [5, 32, 33, 65, 367])
def test_ranges_are_taken_from_32_images_evenly_or_from_all(monkeypatch, count):
    seen = []
    monkeypatch.setattr(proof, 'find', lambda folder, option: list(range(count)))
    monkeypatch.setattr(proof, 'read', lambda path, option: seen.append(path) or np.zeros((64, 64, 3), np.uint8))
    assert len(proof.calibration_images('folder', None, 1)) == len(seen) == min(count, 32)
    steps = np.diff([*seen, count])
    assert seen[0] == 0 and steps.min() >= 1 and steps.max() - steps.min() <= 1


def test_images_are_read_as_predictions_load_them(tmp_path):
    """Upright, of 16 bits the upper 8, and without what macOS leaves beside them."""
    pixels = cv2.resize(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), (96, 64))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=turned)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / 'b.png')
    (tmp_path / '._a.png').write_bytes(b'of macOS')
    (tmp_path / '.trash').mkdir()
    Image.fromarray(pixels).save(tmp_path / '.trash/a.png')
    first, second = map(proof.read, proof.find(tmp_path, '--images'))
    assert np.array_equal(first[..., 0], np.rot90(pixels, -1))
    assert np.array_equal(second, np.stack([pixels] * 3, 2))


def test_a_broken_image_is_one_message(tmp_path):
    Image.fromarray(random_images(200, 200)).save(tmp_path / 'a.png')
    content = bytearray((tmp_path / 'a.png').read_bytes())
    content[content.rindex(b'IDAT')] = 7    # of which Pillow makes a SyntaxError
    (tmp_path / 'a.png').write_bytes(content)
    for read in (proof.read, proof.read_label):
        with pytest.raises(UserError, match=r'a\.png cannot be read as an image: '):
            read(tmp_path / 'a.png')


def test_labels_are_those_of_the_images_from_the_first_class_on(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (5, 4)).save(tmp_path / 'images/a.jpg')
    with pytest.raises(UserError, match=r'a\.jpg has no label file .*a\.png'):
        next(labelled_images(tmp_path / 'images', tmp_path / 'labels', None, 0))
    (tmp_path / 'labels').mkdir()
    Image.fromarray(np.array([[0, 1, 2, 150, 255]] * 4, np.uint8)).save(tmp_path / 'labels/a.png')
    for first, expected in ((0, [0, 1, 2, 150, 255]), (1, [-1, 0, 1, 149, 255])):
        (_, label), = labelled_images(tmp_path / 'images', tmp_path / 'labels', None, first)
        assert label[0].tolist() == expected
    (_, label), = labelled_images(tmp_path / 'images', tmp_path / 'labels', None, 1, {0: 1, 1: 255, 149: 0})
    assert label[0].tolist() == [-1, 1, 255, 0, 255]


def test_miou_is_the_mean_over_the_classes_that_occur():
    counts = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])    # labels, predictions
    assert miou(counts) == pytest.approx(100 * (3 / 6 + 4 / 7) / 2)


def test_a_torch_that_cannot_export_is_named(monkeypatch):
    monkeypatch.setattr(torch.export, 'export', lambda module, args, *, dynamic_shapes=None: None)
    for kind in files.FORMATS:
        with pytest.raises(UserError, match=rf'torch is {re.escape(torch.__version__)}, .*2\.14.*a newer torch'):
            files.require_packages(kind)


def test_a_quantizer_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(files, 'can_export', lambda: True)

    def import_module(name):
        if name == 'nncf':
            raise ImportError('No module named nncf')
    monkeypatch.setattr(files.importlib, 'import_module', import_module)
    files.require_packages('openvino', 'fp32')
    with pytest.raises(UserError, match=r'needs nncf.*pip install "inceptionnext-seg\[export-int8\]"'):
        files.require_packages('openvino', 'int8')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--dtype', 'int8'], '--calibration is missing'), (['--calibration', '.'], r'is fp32 and --calibration \.'),
    (['--dtype', 'bf16'], 'does not convolve bfloat16'), (['--labels', '.'], '--images is missing'),
    (['--dtype', 'int8', '--calibration', '.', '--form', 'winograd'], 'plain, factorized or auto'),
    (['--dtype', 'bf16', '--format', 'torch-export'], r"fuse_for_inference\(model, dtype='bf16'\)"),
    (['--size', '512'], "'512'; expected: HEIGHTxWIDTH"), (['--batch-size', '2'], 'of a dynamic one the batch is open'),
    (['--out', 'a.pt'], r'a\.pt; expected for --format onnx: .*\.onnx'), (['--images', '.'], 'has no image')])
def test_a_wrong_argument_is_one_message(export, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = export(*arguments)
    assert code == 2
    assert re.search(message, err), err
