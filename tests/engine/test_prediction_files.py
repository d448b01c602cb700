"""Predictions as files of every format, and back through the importer."""
import csv
import json
import math
import os
import re
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import init_model
from PIL import Image

from inceptionnext_seg.api.predictor import Predictor
from inceptionnext_seg.cli import active, predict
from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.exporting import labelme_of, regions
from inceptionnext_seg.data.importing import Options, import_dataset
from inceptionnext_seg.engine.image_files import find_images
from inceptionnext_seg.engine.inference import Labels, Segmentor
from inceptionnext_seg.engine.prediction_files import Predicted, PredictionFiles, predict_files
from inceptionnext_seg.errors import UserError

CAMVID = Path(__file__).parents[2] / 'configs/upernet_inceptionnext_a_camvid.py'
OUT = ('--device', 'cpu', '--out')


def scene(width, height, seed):
    """An RGB picture of smooth random blobs."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def class_numbers(path):
    return np.asarray(Image.open(path))


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A config with narrow heads, and random weights for it."""
    folder = tmp_path_factory.mktemp('small')
    (folder / 'config.py').write_text(
        f"_base_ = ['{CAMVID}']\nmodel = dict(decode_head=dict(channels=16), auxiliary_head=dict(channels=16))\n")
    torch.manual_seed(0)
    model = init_model(Config.fromfile(folder / 'config.py'), device='cpu')
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    return [str(folder / 'config.py'), str(folder / 'weights.pth')]


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'deep').mkdir()
    Image.fromarray(scene(70, 45, 1)).save(folder / 'a b.png')
    Image.fromarray(scene(64, 64, 2)).save(folder / 'deep/c.png')
    return folder


@pytest.fixture(scope='module')
def every(small, photos, tmp_path_factory):
    """The folder of all formats."""
    out = tmp_path_factory.mktemp('every')
    assert predict.main([*small, str(photos), *OUT, str(out), '--confidence', '--format', 'png', 'npz', 'coco',
                         'labelme']) == 0
    return out


def test_arrays_and_grey_maps_are_what_the_predictor_says(small, photos, every):
    predictor = Predictor(Segmentor(Config.fromfile(small[0]), small[1]), torch.device('cpu'))
    for name in ('a b', 'deep/c'):
        found, arrays = predictor.predict(photos / f'{name}.png'), np.load(every / f'arrays/{name}.npz')
        np.testing.assert_array_equal(arrays['classes'], class_numbers(every / f'class_numbers/{name}.png'))
        assert (arrays['classes'] == found.classes).all() and len(np.unique(found.classes)) > 2
        np.testing.assert_allclose(arrays['confidence'], found.confidence, atol=1e-3)
        np.testing.assert_allclose(arrays['entropy'], found.entropy, atol=2e-3)
        np.testing.assert_allclose(
            class_numbers(every / f'confidence/{name}.png') / 255, found.confidence, atol=1 / 255
        )
        np.testing.assert_allclose(class_numbers(every / f'entropy/{name}.png') / 255, found.entropy / math.log(11),
                                   atol=1 / 255)


@pytest.mark.parametrize('kind', ['labelme', 'coco'])
def test_a_prediction_comes_back_through_the_importer_as_it_was(every, photos, tmp_path, kind):
    source = every / 'labelme'
    if kind == 'coco':
        source = tmp_path / 'source'
        shutil.copytree(photos, source)
        shutil.copy(every / 'coco.json', source)
    options = Options(val=0.5, uncorrected='take' if kind == 'labelme' else 'leave')
    import_dataset(source, tmp_path / 'out', options, progress=False)
    names = [entry['name'] for entry in json.loads((every / 'classes.json').read_text())]
    order = np.array([names.index(name) for name in read_description(tmp_path / 'out').classes])
    for name in ('a b', 'deep/c'):
        found = class_numbers(next((tmp_path / 'out/annotations').rglob(f'{name[-1:] if "/" in name else name}.png')))
        np.testing.assert_array_equal(order[found], class_numbers(every / f'class_numbers/{name}.png'))


def test_of_a_folder_of_predictions_the_labels_are_imported_and_neither_overlays_nor_maps(every, photos, tmp_path):
    report = import_dataset(every, tmp_path / 'out', Options(val=0.5, uncorrected='take'), progress=False)
    assert report.description.unlabelled == 0 and report.left_out == [] and 'labelme is read' in report.text()
    assert sum(split['images'] for split in report.description.splits.values()) == 2
    with pytest.raises(UserError, match='2 Labelme files are as `predict` wrote them'):
        import_dataset(every, tmp_path / 'none', Options(), progress=False)
    report = import_dataset(every, tmp_path / 'numbers', Options(val=0.5, masks=Path('class_numbers')), progress=False)
    assert report.description.unlabelled == 0 and 'class_numbers is read, and nothing tells' in report.text()
    # Without Labelme's copies there are no images: what to copy, and to where.
    shutil.copytree(every, tmp_path / 'every', ignore=shutil.ignore_patterns('labelme'))
    for folder, way in ((every / 'coco', every / 'labelme'), (every / 'overlays', every / 'labelme'),
                        (tmp_path / 'every', '--format labelme'), (tmp_path / 'every/confidence', '--format labelme')):
        with pytest.raises(UserError, match=rf'{folder} was written by .*coco\.json into {photos}') as error:
            import_dataset(folder, tmp_path / 'out2', Options(), progress=False)
        assert str(way) in str(error.value)
    # Beside photographs they are none of them.
    shutil.copytree(photos, tmp_path / 'photos')
    shutil.copy(every / 'coco.json', tmp_path / 'photos')
    shutil.copytree(every, tmp_path / 'photos/predicted')
    report = import_dataset(tmp_path / 'photos', tmp_path / 'out3', Options(val=0.5), progress=False)
    assert report.description.unlabelled == 0 and sum(report.sizes.values()) == 2
    assert 'into predicted is not imported' in report.text()


def test_outlines_drawn_from_the_largest_on_are_the_map_and_small_ones_can_be_left_out():
    random = np.random.default_rng(0)
    for _ in range(6):
        classes = (random.random((23, 31)) < 0.5).astype(np.uint8) + (random.random((23, 31)) < 0.2)
        drawn = np.full(classes.shape, 9, np.uint8)
        for index, outline in regions(classes):
            cv2.fillPoly(drawn, [outline.astype(np.int32)], int(index))
        np.testing.assert_array_equal(drawn, classes)
    classes[:] = 0
    classes[3:5, 3:5] = 1
    assert len(regions(classes)) == 2 and len(regions(classes, least_area=5)) == 1
    assert labelme_of(classes, ('a', 'b'), 'x.jpg')['shapes'][1]['label'] == 'b'


def test_a_prediction_goes_on_where_it_stopped_unless_the_checkpoint_is_another(small, photos, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = [*small, str(photos), *OUT, str(out)]
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad/cut.png').write_bytes((photos / 'a b.png').read_bytes()[:300])
    shutil.copy(photos / 'a b.png', tmp_path / 'bad')
    assert predict.main([*small, str(tmp_path / 'bad'), *OUT, str(out), '--confidence']) == 1
    assert 'not segmented' in capsys.readouterr().err
    shutil.rmtree(out)
    assert predict.main(arguments) == 0
    first, second = out / 'overlays/a b.png', out / 'overlays/deep/c.png'
    before = first.stat().st_mtime_ns
    second.unlink()
    assert predict.main([*arguments, '--resume']) == 0
    assert first.stat().st_mtime_ns == before and second.is_file()
    other = tmp_path / 'other.pth'
    shutil.copy(small[1], other)
    with pytest.raises(SystemExit):
        predict.main([small[0], str(other), str(photos), *OUT, str(out), '--resume'])
    assert 'another checkpoint' in capsys.readouterr().err


class Drawn:
    """Predictions of one class each, without a network."""
    labels = Labels(('road', 'sky'), np.array([[0, 0, 0], [0, 0, 255]], np.uint8), 0)

    def __init__(self, source, out):
        self.source, self.out = source, out

    def predict(self, index, formats, checkpoint, resume=False, stop=None):
        """The tool's steps; ends before image number ``stop`` as by Ctrl-C."""
        seen = []

        def predict_one(path):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(path.name)
            image = np.asarray(Image.open(path).convert('RGB'))
            entropy = np.zeros(image.shape[:2], np.float32)
            return Predicted(image, np.full(image.shape[:2], index, np.uint8), entropy + 1, entropy)

        images = find_images(self.source, self.out).outputs
        files = PredictionFiles(self.out, self.labels, formats, source=self.source,
                                settings=dict(checkpoint=checkpoint))
        files.create_folders()
        files.record(resume)
        try:
            outcome = predict_files(predict_one, images, files, resume, progress=False)
        except KeyboardInterrupt:
            return seen
        files.finish(images)
        return seen, outcome


@pytest.fixture
def drawn(tmp_path):
    (tmp_path / 'photos').mkdir()
    for i in range(3):
        Image.fromarray(scene(40, 32, i)).save(tmp_path / f'photos/a{i}.png')
    return Drawn(tmp_path / 'photos', tmp_path / 'out')


def test_a_labelme_file_that_was_corrected_is_kept_when_the_folder_is_predicted_again(drawn):
    drawn.predict(0, ('labelme', ), 'A')
    mine, others, foreign = (drawn.out / f'labelme/{name}.json' for name in ('a0', 'a1', 'a2'))
    content = json.loads(mine.read_text())
    content['shapes'][0]['points'][0][0] += 0.5     # a point dragged; Labelme keeps keys that it does not know
    mine.write_text(json.dumps(content, indent=2))
    foreign.write_text('{"shapes": []}')
    others.write_text(json.dumps(json.loads(others.read_text())))   # saved again as it was
    kept = [mine.read_bytes(), foreign.read_bytes()]
    Image.fromarray(scene(40, 32, 9)).save(drawn.source / 'a3.png')
    seen, outcome = drawn.predict(1, ('labelme', ), 'B')
    assert seen == ['a1.png', 'a3.png'] and outcome.kept == [mine, foreign]
    assert [mine.read_bytes(), foreign.read_bytes()] == kept
    for path in (others, drawn.out / 'labelme/a3.json'):
        assert [shape['label'] for shape in json.loads(path.read_text())['shapes']] == ['sky']
    seen, outcome = drawn.predict(1, ('labelme', ), 'B', resume=True)
    assert (seen, outcome.kept) == ([], [])
    seen, outcome = drawn.predict(1, ('png', 'labelme'), 'B')
    assert len(seen) == 4 and outcome.kept == [mine, foreign] and mine.read_bytes() == kept[0]


@pytest.mark.parametrize('kind', ['png', 'npz', 'coco', 'labelme'])
def test_files_of_another_checkpoint_are_not_taken_for_those_of_a_run_that_stopped(drawn, kind):
    drawn.predict(0, (kind, ), 'A')
    assert drawn.predict(1, (kind, ), 'B', stop=1) == ['a0.png']
    assert drawn.predict(1, (kind, ), 'B', resume=True)[0] == ['a1.png', 'a2.png']
    assert drawn.predict(1, (kind, ), 'B', resume=True)[0] == []


@pytest.mark.parametrize('kind', ['png', 'npz', 'coco', 'labelme'])
def test_another_image_of_the_same_name_is_not_taken_for_one_that_is_done(drawn, kind):
    drawn.predict(0, (kind, ), 'A')
    Image.fromarray(scene(50, 36, 7)).save(drawn.source / 'a1.png')     # cameras count from 1 again
    assert drawn.predict(0, (kind, ), 'A', resume=True)[0] == ['a1.png']
    assert drawn.predict(0, (kind, ), 'A', resume=True)[0] == []


def test_coco_has_the_predictions_of_this_run_alone_and_names_images_as_they_are_called(drawn):
    (drawn.source / 'deep').mkdir()
    for name in ('deep/a0.JPG', 'a0.jpg'):
        Image.fromarray(scene(40, 32, 0)).save(drawn.source / name)
    latin = Path(os.fsdecode(os.fsencode(drawn.source) + b'/stra\xdfe.png'))
    shutil.copy(drawn.source / 'a0.png', latin)
    drawn.predict(0, ('coco', 'labelme'), 'A')
    (drawn.source / 'a1.png').write_bytes(b'cut')
    _, outcome = drawn.predict(1, ('coco', 'labelme'), 'B')
    assert [path.name for path in outcome.failures] == ['a1.png']
    names = [image['file_name'] for image in json.loads((drawn.out / 'coco.json').read_text())['images']]
    assert names == ['a0.jpg', 'a0.png', 'a2.png', 'deep/a0.JPG', latin.name]
    image = json.loads((drawn.out / 'labelme' / latin.with_suffix('.json').name).read_text())['imagePath']
    assert (drawn.out / 'labelme' / image).read_bytes() == latin.read_bytes()
    jfif = PredictionFiles(drawn.out, drawn.labels, ('labelme', )).paths(Path('b.png'), Path('b.jfif'))
    assert jfif['image'].name == 'b.jpg'        # Labelme lists no .jfif


@pytest.mark.parametrize(('kind', 'name'), [
    ('coco', 'coco.json'), ('png', 'classes.json'), ('labelme', 'labelme/IMG_1.jpg'), ('png', 'overlays/a0.png')])
def test_files_that_predict_did_not_write_are_not_written_over(drawn, kind, name):
    mine = drawn.out / name
    mine.parent.mkdir(parents=True)
    mine.write_text('by hand')
    with pytest.raises(UserError, match=f'{drawn.out / name.partition("/")[0]} is there, and `predict` did not write'):
        drawn.predict(0, (kind, ), 'A')
    assert mine.read_text() == 'by hand' and not (drawn.out / 'predict.json').exists()


def test_what_was_kept_is_counted_and_another_test_pipeline_is_not_resumed(small, photos, tmp_path, capsys):
    arguments = [*small, str(photos), *OUT, str(tmp_path), '--format', 'labelme']
    assert predict.main(arguments) == 0
    path = tmp_path / 'labelme/deep/c.json'
    path.write_text(path.read_text().replace('"shapes": [', '"shapes": [{"label": "by hand"},', 1))
    assert predict.main(arguments) == 1
    assert 'by hand' in path.read_text()
    found = capsys.readouterr()
    assert f'kept: 1 Labelme file, corrected since predict wrote into the folder: {path}' in found.err
    assert '1 of 2 images segmented' in found.out
    with pytest.raises(SystemExit):
        predict.main([*arguments, '--resume', '--cfg-options',
                      'test_dataloader.dataset.pipeline.0.imdecode_backend=pillow'])
    assert 'another pipeline' in capsys.readouterr().err


def test_a_video_is_segmented_frame_by_frame_and_written_as_one(small, tmp_path, capsys):
    pytest.importorskip('av', reason='videos need PyAV')
    from inceptionnext_seg.api.video import frames, rate_and_count, writer
    shots = [np.full((48, 64, 3), 60 * i, np.uint8) + scene(64, 48, 3) // 8 for i in range(3)]
    with writer(tmp_path / 'in.mp4', 12) as append:
        for shot in shots:
            append(shot)
    assert rate_and_count(tmp_path / 'in.mp4') == (12, 3)
    assert [int(abs(found.astype(int) - shot).mean()) < 6 for found, shot in zip(
        frames(tmp_path / 'in.mp4'), shots, strict=True)] == [True] * 3
    assert predict.main([*small, '--video', str(tmp_path / 'in.mp4'), '--device', 'cpu', '--opacity', '0', '--out',
                         str(tmp_path / 'out.mp4')]) == 0
    assert [abs(found.astype(int) - shot).mean() < 9 for found, shot in zip(
        frames(tmp_path / 'out.mp4'), shots, strict=True)] == [True] * 3
    # Whatever the file is called: PyAV knows more kinds than those of VIDEO_SUFFIXES, moving pictures among them.
    shutil.copy(tmp_path / 'in.mp4', tmp_path / 'clip.MTS')
    Image.fromarray(shots[0]).save(tmp_path / 'anim.gif', save_all=True, append_images=[Image.fromarray(shots[2])])
    for name, count in (('clip.MTS', 3), ('anim.gif', 2)):
        assert predict.main([*small, '--video', str(tmp_path / name), *OUT, str(tmp_path / 'other.mp4')]) == 0
        assert f'{count} frames segmented' in capsys.readouterr().out
    (tmp_path / 'same.mp4').symlink_to(tmp_path / 'in.mp4')
    with pytest.raises(SystemExit):
        predict.main([*small, '--video', str(tmp_path / 'in.mp4'), '--out', str(tmp_path / 'same.mp4')])
    assert 'is the video that is read' in capsys.readouterr().err
    (tmp_path / 'no.mp4').write_text('no video')
    with pytest.raises(SystemExit):
        predict.main([*small, '--video', str(tmp_path / 'no.mp4'), '--out', str(tmp_path / 'x.mp4')])
    assert 'cannot be read as a video' in capsys.readouterr().err
    assert not (tmp_path / 'x.mp4').exists()


@pytest.mark.parametrize(('matrix', 'turn'), [
    ((0, 1, -1, 0), 'right'), ((0, -1, 1, 0), 'left'), ((-1, 0, 0, -1), 'down')])
def test_the_frames_of_a_phones_video_are_upright(tmp_path, matrix, turn):
    """By the matrix of ISO/IEC 14496-12: (x, y) is shown at (a x + c y, b x + d y), y downwards."""
    pytest.importorskip('av', reason='videos need PyAV')
    from inceptionnext_seg.api.video import frames, writer
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:8] = 255        # a bright strip on top
    with writer(tmp_path / 'in.mp4', 12) as append:
        append(stored)
    content = bytearray((tmp_path / 'in.mp4').read_bytes())
    at = content.index(b'tkhd') + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[at:at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 2**30)
    (tmp_path / 'in.mp4').write_bytes(content)
    expected = dict(right=stored.swapaxes(0, 1)[:, ::-1], left=stored.swapaxes(0, 1), down=stored[::-1])[turn]
    found, = frames(tmp_path / 'in.mp4')
    assert found.shape == expected.shape and abs(found.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--video', 'in.mp4', '--confidence'), '--confidence has no meaning with --video'),
    (('--video', 'in.mp4', '--format', 'png'), '--format has'), (('--video', 'in.mp4', '--resume'), '--resume has'),
    (('--video', 'in.mp4', '--launcher', 'pytorch'), '--launcher has'), (('photos', '--video', 'in.mp4'), 'either'),
    (('photos', '--simplify', '0'), '--simplify is for .* labelme'),
    (('photos', '--format', 'coco', '--opacity', '0'), '--opacity is for'),
    (('photos', '--format', 'labelme', '--least-area', '-1'), '-1 is not 0 or more')])
def test_an_option_that_would_do_nothing_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        predict.parse_args(['config', 'checkpoint', *arguments, '--out', 'out'])
    assert re.search(message, capsys.readouterr().err)


def test_images_are_ranked_by_entropy_and_the_next_frame_of_a_sequence_goes_to_the_end(small, photos, tmp_path):
    folder = tmp_path / 'photos'
    shutil.copytree(photos, folder)
    shutil.copy(photos / 'a b.png', folder / 'frame2.png')
    shutil.copy(photos / 'deep/c.png', folder / os.fsdecode(b'stra\xdfe.png'))
    assert active.main([*small, str(folder), *OUT, str(tmp_path / 'ranking.csv')]) == 0
    rows = list(csv.DictReader((tmp_path / 'ranking.csv').open()))
    predictor = Predictor(Segmentor(Config.fromfile(small[0]), small[1]), torch.device('cpu'))
    assert sum(row['image'].endswith('stra\\xdfe.png') for row in rows) == 1     # as it is shown: it is not UTF-8
    rows = [row for row in rows if 'stra' not in row['image']]
    entropy = {row['image']: predictor.predict(row['image']).entropy.mean() / math.log(11) for row in rows}
    assert all(abs(float(row['entropy']) - entropy[row['image']]) < 1e-3 for row in rows)
    assert float(rows[0]['entropy']) >= float(rows[1]['entropy'])
    assert rows[2]['looks_like'] and {rows[2]['image'], rows[2]['looks_like']} == {
        str(folder / 'a b.png'), str(folder / 'frame2.png')}


def test_where_the_ranking_goes_is_looked_at_before_anything_is_ranked(tmp_path, capsys):
    for out, message in ((tmp_path, 'which is a folder'), (tmp_path / 'file/ranking.csv', 'file is a file')):
        (tmp_path / 'file').touch()
        with pytest.raises(SystemExit):
            active.main(['no config', 'no checkpoint', 'no folder', *OUT, str(out)])
        assert message in capsys.readouterr().err


def test_ranking_goes_on_after_an_image_that_the_memory_of_a_gpu_does_not_take():
    def predict_one(path):
        if path.name == 'large.png':
            raise torch.OutOfMemoryError
        return SimpleNamespace(entropy=np.zeros(1), confidence=np.ones(1), image=np.zeros((9, 9, 3), np.uint8))

    predictor = SimpleNamespace(labels=Drawn.labels, predict=predict_one)
    rows, failures = active.rank(predictor, [Path('large.png'), Path('small.png')], progress=False)
    assert [row[0].name for row in rows] == ['small.png'] and 'memory' in failures[Path('large.png')]


def test_what_is_a_picture_and_cannot_be_read_is_counted_and_named_by_predict_and_by_active(
        small, photos, tmp_path, capsys):
    folder = tmp_path / 'photos'
    folder.mkdir()
    shutil.copy(photos / 'a b.png', folder)
    (folder / 'x.heic').touch()
    cv2.imwrite(str(folder / 'deep.png'), np.full((48, 64), 4095, np.uint16))
    for arguments in ((), ('--confidence', )):
        assert predict.main([*small, str(folder), *OUT, str(tmp_path / 'out'), *arguments]) == 1
        found = capsys.readouterr()
        assert '1 of 3 images segmented' in found.out
        lines = [line for line in found.err.splitlines() if 'not segmented' in line]
        assert len(lines) == 2 and all(line.count(str(folder)) == 1 for line in lines)
        assert 'deep.png cannot be read' in lines[0] and '16 bits' in lines[0]
        assert 'x.heic cannot be read: it is a .heic file' in lines[1]
    assert active.main([*small, str(folder), *OUT, str(tmp_path / 'ranking.csv')]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'not ranked' in line]
    assert len(lines) == 2 and '16 bits' in lines[0] and 'x.heic' in lines[1]


@pytest.mark.slow
def test_processes_share_a_folder_and_the_exit_code(small, photos, tmp_path, run_command):
    shutil.copytree(photos, tmp_path / 'photos')
    (tmp_path / 'photos/z.png').write_text('none')
    result = run_command(
        'tools/predict.py',
        *small,
        tmp_path / 'photos',
        *OUT,
        tmp_path / 'out',
        '--launcher',
        'pytorch',
        '--format',
        'coco',
        launcher=('-m', 'torch.distributed.run', '--nproc_per_node=2'),
    )
    assert result.returncode == 1, result.stderr[-2000:]
    assert '2 of 3 images segmented' in result.stdout and result.stderr.count('not segmented:') == 1
    assert len(json.loads((tmp_path / 'out/coco.json').read_text())['images']) == 2
