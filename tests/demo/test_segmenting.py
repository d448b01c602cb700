"""What happens to an upload, without the page."""
import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.demo import segmenting
from inceptionnext_seg.demo.segmenting import check_upload, example_images, segment, write_files
from inceptionnext_seg.errors import UserError


def picture(path, width=70, height=45):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def header(width, height):
    """The beginning of a file that says how large it is, and has no pixels."""
    return f'P6\n{width} {height}\n255\n'.encode()


def test_an_upload_is_segmented_by_each_model_and_written_as_predict_writes_it(model, tmp_path):
    path, named = picture(tmp_path / 'a street.png'), []
    first, second = segment([model, model._replace(name='again')], path, 10**6, named.append)
    assert named == ['tiny, weights.pth', 'again'] == [first.model.name, second.model.name]
    assert first.seconds > 0 and np.array_equal(first.prediction.classes, second.prediction.classes)
    mask, overlay = write_files(first, tmp_path, path.stem, 0.0)
    assert (mask.name, overlay.name) == ('a street_classes.png', 'a street_overlay.png')
    assert np.array_equal(np.asarray(Image.open(mask)), model.predictor.predict(path).classes)
    assert np.array_equal(np.asarray(Image.open(overlay))[:45, :70], np.asarray(Image.open(path)))
    assert write_files(first, tmp_path, path.stem, 0.0)[0] != mask     # nothing is overwritten


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'upload.png is empty'), (b'no image', 'upload.png is no image'),
    (header(4000, 3000), r'upload.png is too large: 4000×3000 pixels, 12\.0 million.* at most 1 million'),
    (header(30000, 30000), r'upload.png is too large.* at most 1 million'),
    ('cut', r'^upload\.png cannot be read as an image'), ('thin', 'upload.png cannot be segmented'),
    ('deep', r'^upload\.png cannot be read .*16 bits')])
def test_an_upload_that_cannot_be_used_is_one_message_that_names_it(model, tmp_path, content, message):
    path = tmp_path / 'upload.png'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == 'deep':     # 12 bits in 16
        Image.fromarray(np.full((45, 70), 4095, np.uint16)).save(path)
    else:
        picture(path, *((70, 45) if content == 'cut' else (400, 12)))
        if content == 'cut':
            path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=message) as error:
        segment([model], path, 10**6)
    assert str(tmp_path) not in str(error.value)


def test_whatever_a_model_raises_is_one_message(model, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(model.predictor, 'predict', fail)
    with pytest.raises(UserError, match=r"image\.png could not be segmented by tiny, .*can't allocate memory"):
        segment([model], picture(tmp_path / 'image.png'), 10**6)
    assert 'Traceback' in capsys.readouterr().err


def test_the_size_is_known_before_a_pixel_is_decoded(tmp_path):
    (tmp_path / 'a.png').write_bytes(header(4000, 3000))
    assert check_upload(tmp_path / 'a.png', 12 * 10**6) == (4000, 3000)


def test_examples_are_drawn_scenes_and_camvid_where_it_is_or_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenting, 'draw_scene', lambda seed: (np.full((4, 6, 3), seed % 256, np.uint8), None))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/camvid/images/validation').mkdir(parents=True)
    (tmp_path / 'own').mkdir()
    picture(tmp_path / 'data/camvid/images/validation/street.png')
    names = [path.name for path in example_images(tmp_path, scenes=2)]
    assert names == ['drawn_scene_1.png', 'drawn_scene_2.png', 'street.png']
    with pytest.raises(UserError, match=r'--examples is .*own, where no image is'):
        example_images(tmp_path, tmp_path / 'own')
    picture(tmp_path / 'own/b.png')
    picture(tmp_path / 'own/._b.png')       # what macOS leaves behind comes first
    (tmp_path / 'served').mkdir()
    # Gradio serves no files of folders elsewhere.
    assert example_images(tmp_path / 'served', tmp_path / 'own') == [tmp_path / 'served/b.png']
    assert (tmp_path / 'served/b.png').read_bytes() == (tmp_path / 'own/b.png').read_bytes()
