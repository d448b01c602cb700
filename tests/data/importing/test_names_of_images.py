"""Which file the name in an annotation file means: moved folders are found, other folders are not taken for it."""
import json

import numpy as np
import pytest
from two_images import HEIGHT, WIDTH, convert, masks_of, picture

from inceptionnext_seg.errors import UserError


def save(source, names, files, ids=None):
    """COCO's and images; the n-th image has n columns of the class at the left."""
    for i, file in enumerate(files):
        picture(source / file, i)
    images = [dict(id=number, file_name=name, width=WIDTH, height=HEIGHT)
              for number, name in zip(ids or range(1, 1 + len(names)), names, strict=True)]
    annotations = [
        dict(id=n, image_id=image['id'], category_id=1, segmentation=[[0, 0, n, 0, n, HEIGHT, 0, HEIGHT]])
        for n, image in enumerate(images, 1)
    ]
    (source / 'labels.json').write_text(json.dumps(dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='car')])))


def labelled(source):
    """From the source file of each image with a mask to the number of columns that its shape has."""
    lines = (source.parent / 'out/sources.csv').read_text().splitlines()[1:]
    names = {line.split(',')[0].rpartition('/')[2].rpartition('.')[0]: line.split(',')[1] for line in lines}
    return {names[name]: int(np.count_nonzero(mask[0] == 1)) for name, mask in masks_of(source).items()}


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'source').mkdir()
    return tmp_path / 'source'


@pytest.mark.parametrize(('names', 'files', 'noted'), [
    (('a.png', 'b.png'), ('images/a.png', 'images/b.png'), False),
    (('seq1/a.png', 'seq2/a.png'), ('photos/seq1/a.png', 'photos/seq2/a.png'), False),
    (('/home/bob/seq1/a.png', '/home/bob/seq2/a.png'), ('seq1/a.png', 'seq2/a.png'), False),
    (('C:\\photos\\a.png', 'C:\\photos\\b.png'), ('a.png', 'b.png'), False),
    (('images/a.png', 'images/b.png'), ('photos/a.png', 'photos/b.png'), True),
    (('x/a.png', 'y/b.png'), ('photos/a.png', 'photos/b.png'), True)])
def test_flat_names_and_moved_folders_are_found_and_another_folder_is_noted(source, names, files, noted):
    save(source, names, files)
    report = convert(source)
    assert report.left_out == [] and labelled(source) == dict(zip(files, (1, 2), strict=True))
    assert any('moved or renamed' in note and 'photos' in note for note in report.notes) == noted


@pytest.mark.parametrize(('names', 'files', 'expected', 'count'), [
    # Sequences that are told apart by a number are not each other.
    (('seq1/a.png', 'seq1/b.png', 'c.png', 'd.png'), ('seq2/a.png', 'seq2/b.png', 'c.png', 'd.png'),
     {'c.png': 3, 'd.png': 4}, 2),
    # The folder has a name of its own in the file.
    (('left/a.png', 'right/b.png', 'right/c.png'), ('right/a.png', 'right/b.png', 'right/c.png'),
     {'right/b.png': 2, 'right/c.png': 3}, 1),
    # The image is meant by a name that fits, whichever comes first.
    (('left/a.png', 'right/a.png', 'right/c.png'), ('right/a.png', 'right/c.png'),
     {'right/a.png': 2, 'right/c.png': 3}, 1),
    # Of two that fit alike neither is taken.
    (('left/a.png', 'right/a.png', 'c.png', 'd.png'), ('a.png', 'c.png', 'd.png'), {'c.png': 3, 'd.png': 4}, 2),
    (('x.png', 'X.png', 'c.png'), ('X.png', 'x.png', 'c.png'), {'x.png': 1, 'X.png': 2, 'c.png': 3}, 0)])
def test_a_name_of_another_folder_is_left_out_with_its_reason(source, names, files, expected, count):
    save(source, names, files)
    report = convert(source)
    assert labelled(source) == expected
    assert len(report.left_out) == count and all('names the image' in entry.reason for entry in report.left_out)


def test_the_folder_that_was_given_decides_between_names_too(tmp_path):
    source = tmp_path / 'right'
    source.mkdir()
    save(source, ('left/a.png', 'right/a.png', 'right/b.png'), ('a.png', 'b.png'))
    convert(source)
    assert labelled(source) == {'a.png': 2, 'b.png': 3}


def test_an_id_that_occurs_twice_in_a_coco_file_ends_the_import(source):
    save(source, ('a.png', 'b.png', 'c.png'), ('a.png', 'b.png', 'c.png'), ids=(1, 7, 7))
    with pytest.raises(UserError, match=r"image id 7 .*'b\.png'.*'c\.png'"):
        convert(source)
    save(source, ('a.png', 'b.png'), ())
    content = json.loads((source / 'labels.json').read_text())
    content['categories'].append(dict(id=1, name='road'))
    (source / 'labels.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"category id 1 .*'car'.*'road'"):
        convert(source)
    assert not (source.parent / 'out').exists()


def test_cvats_names_are_looked_up_alike(source):
    for i, file in enumerate(('seq2/a.png', 'seq2/b.png', 'c.png')):
        picture(source / file, i)
    image = '<image id="0" name="{}" width="16" height="12"><box label="car" xtl="0" ytl="0" xbr="{}" ybr="9"/></image>'
    names = ('seq1/a.png', 'seq2/a.png', 'seq2/b.png', 'c.png')
    text = ''.join(image.format(name, n) for n, name in enumerate(names, 1))
    (source / 'annotations.xml').write_text(f'<annotations>{text}</annotations>')
    report = convert(source)
    assert labelled(source) == {'seq2/a.png': 2, 'seq2/b.png': 3, 'c.png': 4}
    [entry] = report.left_out
    assert 'seq1/a.png' in entry.reason
