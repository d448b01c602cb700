"""inceptionnext-seg export: what is written, run in its runtime on images that the export did not see."""
import re

import numpy as np
import pytest
import torch

from inceptionnext_seg import create_model
from inceptionnext_seg.cli import export as tool
from inceptionnext_seg.export.files import Runtime

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


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_dynamic_onnx_file_takes_any_batch_height_and_width(trained, export, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    path = tmp_path / 'out.onnx'
    code, out, err = export('--out', path, '--preprocess', '--postprocess', '--form', 'factorized')
    assert code == 0, err
    assert out.count('% of the pixels have the same class') == 3
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
    code, _, err = export('--format', kind, '--size', '75x98', '--out', tmp_path / f'out{suffix}')
    assert code == 0, err
    expected = ['out.bin', 'out.xml'] if kind == 'openvino' else ['out.pt2']
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    inputs = trained[2].normalize(torch.from_numpy(random_images(1, 75, 98)).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = trained[2](inputs).numpy()
    found, = Runtime(tmp_path / f'out{suffix}', kind)(np.ascontiguousarray(inputs.numpy()))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


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


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--size', '512'], "'512'; expected: HEIGHTxWIDTH"), (['--batch-size', '2'], 'of a dynamic one the batch is open'),
    (['--out', 'a.pt'], r'a\.pt; expected for --format onnx: .*\.onnx'), (['--images', '.'], 'has no image')])
def test_a_wrong_argument_is_one_message(export, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = export(*arguments)
    assert code == 2
    assert re.search(message, err), err
