"""Which files of a folder are segmented, and what is said of the others."""
import cv2
import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.engine.image_files import check_image, find_images
from inceptionnext_seg.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_keeps_its_structure_and_no_two_images_share_an_output(tmp_path):
    touch(tmp_path, 'a.jpg', 'a.png', 'a.jpg.jpg', 'b.JPEG', 'c.jfif', 'deep/er/a.jpg', 'notes.txt',
          'out/overlays/old.png', 'out/class_numbers/deep/old.png', 'overlays/mine.png')
    found = find_images(tmp_path, tmp_path / 'out')
    assert {str(path.relative_to(tmp_path)): str(name) for path, name in found.outputs.items()} == {
        'a.jpg': 'a.jpg.png', 'a.png': 'a.png.png', 'a.jpg.jpg': 'a.jpg.jpg.png', 'b.JPEG': 'b.png', 'c.jfif': 'c.png',
        'deep/er/a.jpg': 'deep/er/a.png', 'overlays/mine.png': 'overlays/mine.png'}
    assert found.left_out == {}


def test_what_predict_wrote_before_and_what_is_hidden_are_no_images(tmp_path):
    touch(tmp_path, 'a.jpg', '._a.jpg', '.thumbnails/a.jpg', '__MACOSX/a.jpg', '.b.heic', 'labelme/mine.jpg',
          'deep/predicted/predict.json', 'deep/predicted/classes.json', 'deep/predicted/overlays/a.png',
          'deep/predicted/entropy/in/a.png', 'deep/predicted/labelme/a.jpg', 'deep/predicted/b.jpg')
    found = find_images(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in found.outputs) == [
        'a.jpg', 'deep/predicted/b.jpg', 'labelme/mine.jpg']
    assert found.left_out == {} and found.notes == [f'left out: what `predict` wrote into {tmp_path}/deep/predicted']
    assert find_images(tmp_path, tmp_path / 'deep/predicted').notes == []       # they are written anew
    assert list(find_images(tmp_path / 'deep/predicted/labelme').outputs)       # asked for by name
    (tmp_path / 'deep/predicted/b.jpg').unlink()
    with pytest.raises(UserError, match=r'no image in .*what `predict` wrote'):
        find_images(tmp_path / 'deep')


def test_the_overlays_of_a_check_are_no_image_and_a_picture_of_that_name_is(tmp_path):
    for name in ('a.jpg', 'check.png', 'deep/check.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    (tmp_path / 'check.html').touch()
    assert [*find_images(tmp_path).outputs] == [tmp_path / 'a.jpg', tmp_path / 'deep/check.png']


def test_pictures_that_cannot_be_read_and_links_are_named_with_the_reason(tmp_path):
    folder, elsewhere = tmp_path / 'photos', tmp_path / 'elsewhere'
    touch(folder, 'b.HEIC', 'd.dng', 'notes.txt', 'in/side.txt')
    touch(elsewhere, 'c.jpg')
    (folder / 'site').symlink_to(elsewhere)
    (folder / 'again').symlink_to(folder / 'in')    # its files are walked where they are
    (folder / 'gone.jpg').symlink_to(tmp_path / 'none.jpg')
    with pytest.raises(UserError, match=r'no image in the folder .*4 pictures or links .*b\.HEIC: .*\.HEIC file'):
        find_images(folder, tmp_path / 'out')
    (folder / 'linked.jpg').symlink_to(elsewhere / 'c.jpg')
    found = find_images(folder, tmp_path / 'out')
    assert list(found.outputs) == [folder / 'linked.jpg']
    reasons = {path.name: reason for path, reason in found.left_out.items()}
    assert list(reasons) == ['b.HEIC', 'd.dng', 'gone.jpg', 'site']
    assert 'Next: convert it' in reasons['b.HEIC'] and 'none.jpg, which is not there' in reasons['gone.jpg']
    assert 'link to a folder' in reasons['site']
    with pytest.raises(UserError, match=r'd\.dng cannot be read: .*convert'):
        find_images(folder / 'd.dng', tmp_path / 'out')


def test_a_picture_of_12_bits_in_16_is_refused_with_the_way_on_and_one_of_16_is_read(tmp_path):
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (48, 1))
    for name, pixels in (('grey.png', ramp), ('colour.png', np.dstack([ramp] * 3)), ('grey.tif', ramp)):
        cv2.imwrite(str(tmp_path / name), pixels)
        with pytest.raises(OSError, match=r'16 bits.* 4095.*--sixteen-bit'):
            check_image(tmp_path / name)
        cv2.imwrite(str(tmp_path / name), 16 * pixels)
        check_image(tmp_path / name)


def test_no_program_is_started_for_a_file_whatever_it_is_called(tmp_path, monkeypatch):
    """Pillow hands an EPS file to `gs`, of the user's PATH."""
    ran = tmp_path / 'ran'
    (tmp_path / 'gs').write_text(f'#!/bin/sh\ntouch {ran}\n')
    (tmp_path / 'gs').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)
    Image.new('RGB', (64, 48)).save(tmp_path / 'a.eps')
    evil = (tmp_path / 'a.eps').rename(tmp_path / 'evil.png')
    with pytest.raises(OSError, match='PNG'):
        check_image(evil)
    assert not ran.exists()
    with pytest.raises(OSError, match=r'.'), Image.open(evil) as file:   # so that the test tests
        file.load()
    assert ran.exists()
