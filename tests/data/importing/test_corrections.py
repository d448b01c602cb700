"""Predictions that were corrected, beside those that were not, and labels that join those of before."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from two_images import (
    COLORS,
    HEIGHT,
    NAMES,
    WIDTH,
    colored,
    convert,
    masks_of,
    picture,
    save_coco,
    save_cvat,
    save_labelme,
    save_masks,
    truth,
)

from inceptionnext_seg.cli import import_dataset as tool
from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.exporting import labelme_of
from inceptionnext_seg.data.importing import Options, import_dataset
from inceptionnext_seg.data.prediction_folder import DIGEST, digest_of
from inceptionnext_seg.errors import UserError


def save_predicted(source, seed, name):
    """A Labelme file as ``predict`` writes it."""
    path = save_labelme(source, seed, name)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {DIGEST: digest_of(content)}))
    return path


def test_a_prediction_that_labelme_itself_has_edited_is_imported_as_labelme_sees_it(source, tmp_path):
    python = os.environ.get('INCEPTIONNEXT_SEG_COCO_PYTHON')
    if not python:
        pytest.skip('INCEPTIONNEXT_SEG_COCO_PYTHON names no Python with pycocotools and labelme')
    expected = {}
    for seed, name in enumerate(('a.png', 'deep/B 2.PNG')):
        path = save_predicted(source, seed, name)
        out = tmp_path / 'seen.json'
        subprocess.run([python, Path(__file__).with_name('edit_in_labelme.py'), path, out], check=True, env={})
        seen = json.loads(out.read_text())
        expected[Path(name).stem] = seen['numbers'], np.array(seen['pixels'])
    report = convert(source)
    assert not report.left_out and report.description.unlabelled == 0
    for name, mask in masks_of(source).items():
        numbers, pixels = expected[name.replace('_', ' ')]
        for label, number in numbers.items():
            np.testing.assert_array_equal(mask == report.description.classes.index(label), pixels == number)


def test_labelme_files_that_nobody_corrected_are_no_labels_unless_they_are_taken(source, tmp_path):
    for seed, name in enumerate(('c.png', 'd.png')):
        picture(source / name, 5 + seed)
    for seed, name in enumerate(('a.png', 'deep/B 2.PNG', 'c.png', 'd.png')):
        path = save_predicted(source, seed % 2, name)
        if name[0] in 'ac':
            content = json.loads(path.read_text())
            content['shapes'][0]['label'] = 'kerb'
            path.write_text(json.dumps(content))
    report = convert(source)
    assert masks_of(source).keys() == {'a', 'c'} and report.description.unlabelled == 2 and report.left_out == []
    [note] = [note for note in report.notes if 'predict' in note]
    assert note.startswith('2 Labelme files') and 'd.json' in note and '--uncorrected take' in note
    assert tool.main([str(source), '--out', str(tmp_path / 'all'), '--uncorrected', 'take']) == 0
    assert read_description(tmp_path / 'all').unlabelled == 0
    for name in ('a.json', 'c.json'):
        (source / name).unlink()
    # Why there is no label is in the message.
    with pytest.raises(UserError, match=r'no labelled image(?s:.)*2 Labelme files are as `predict` wrote them'):
        import_dataset(source, tmp_path / 'none', Options(), progress=False)


def test_a_labelme_file_of_another_sequence_does_not_take_the_image_of_that_name(tmp_path):
    source = tmp_path / 'source'
    for i, name in enumerate(('a/1.png', 'a/2.png', 'seq2/0000.png')):
        picture(source / name, i)
    for i in (1, 2):
        save_labelme(source, i, f'a/{i}.png')
    (source / 'labels').mkdir()
    path = source / 'labels/0000.json'
    path.write_text(json.dumps(labelme_of(truth(), NAMES, '..\\seq1\\0000.png')))
    report = convert(source)
    [entry] = report.left_out
    assert entry.path == 'labels/0000.json' and 'seq1 is not seq2' in entry.reason
    assert masks_of(source).keys() == {'1', '2'} and report.description.unlabelled == 1
    path.write_text(json.dumps(labelme_of(truth(), NAMES, '..\\seq2\\0000.png')))
    assert import_dataset(source, tmp_path / 'out2', Options(), progress=False).description.unlabelled == 0


@pytest.mark.parametrize('save', [lambda source: save_labelme(source, 0, 'a.png'), save_coco, save_cvat])
def test_masks_in_a_source_of_shapes_do_not_become_photographs(source, tmp_path, save):
    picture(source / 'deep/B 2.PNG', 1)
    picture(source / 'c.png', 2)
    picture(source / 'd.png', 3)
    save(source)
    save_labelme(source, 0, 'd.png') if (source / 'a.json').exists() else None
    Image.fromarray(truth()).save(source / 'c_mask.png')
    with pytest.raises(UserError, match=r'1 picture looks like a mask .*c_mask\.png of c\.png'):
        convert(source)
    (source / 'c_mask.png').rename(source / 'a_mask.png')
    report = convert(source)
    assert any('a_mask.png: not imported' in note for note in report.notes)
    assert not list((tmp_path / 'out/images').rglob('a_mask*'))
    # A photograph whose name ends like that of a mask is one.
    (source / 'a_mask.png').unlink()
    picture(source / 'c_mask.png', 9)
    report = import_dataset(source, tmp_path / 'out2', Options(val=0.5), progress=False)
    assert len(list((tmp_path / 'out2/images').rglob('c_mask.png'))) == 1


# Several sources


@pytest.fixture
def mine(source, tmp_path):
    """A data set of masks with an image without one."""
    picture(source / 'u.png', 11)
    save_masks(source, Image.fromarray)
    convert(source, classes=NAMES)
    return (tmp_path / 'out').rename(tmp_path / 'mine')


@pytest.fixture
def corrected(tmp_path):
    """Labelme files of the image that had no mask, of a new one with a new class, and a new image without labels."""
    folder = tmp_path / 'corrected'
    for seed, name in ((11, 'u'), (12, 'v'), (13, 'w')):
        picture(folder / f'{name}.png', seed)
    save_labelme(folder, 0, 'u.png')
    content = labelme_of(truth(1), NAMES, 'v.png')
    content['shapes'].append(dict(label='bike', points=[[0, 0], [2, 0], [2, 2], [0, 2]], shape_type='polygon'))
    (folder / 'v.json').write_text(json.dumps(content))
    return folder


def test_new_labels_join_a_data_set_whose_classes_and_splits_stay(mine, corrected, tmp_path):
    Image.new('RGB', (9, 9)).save(mine / 'check.png')
    before = read_description(mine)
    assert tool.main([str(mine), str(corrected), '--out', str(tmp_path / 'both')]) == 0
    about = read_description(tmp_path / 'both')
    assert about.classes == (*NAMES, 'bike') and about.palette[:3] == before.palette and about.unlabelled == 1
    assert about.source['format'] == ['dataset', 'labelme']
    for path in (mine / 'annotations').rglob('*.png'):
        there = tmp_path / 'both' / path.relative_to(mine)
        np.testing.assert_array_equal(np.asarray(Image.open(there)), np.asarray(Image.open(path)))
    masks = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / 'both/annotations').rglob('*.png')}
    assert masks.keys() == {'a', 'B 2', 'u', 'v'}
    np.testing.assert_array_equal(masks['u'], truth())
    expected = truth(1)
    expected[:3, :3] = 3
    np.testing.assert_array_equal(masks['v'], expected)
    # The image that both have is there once, with its labels.
    assert [path.parent.name for path in (tmp_path / 'both/images').rglob('u.png')] != ['unlabelled']
    rows = (tmp_path / 'both/sources.csv').read_text()
    assert 'corrected/u.png,corrected/u.json' in rows and 'mine/images/unlabelled/u.png' not in rows


def test_labels_of_a_later_source_replace_those_of_an_earlier_one_on_the_same_side(mine, tmp_path):
    [held] = (mine / 'images/validation').iterdir()
    folder = tmp_path / 'again'
    folder.mkdir()
    (folder / held.name).write_bytes(held.read_bytes())
    for i in range(4):
        picture(folder / f'{i}.png', 30 + i)
        save_labelme(folder, 0, f'{i}.png')
    (folder / held.name).with_suffix('.json').write_text(json.dumps(labelme_of(truth() * 0, NAMES, held.name)))
    for seed in range(3):
        out = tmp_path / f'both{seed}'
        report = import_dataset([mine, folder], out, Options(seed=seed), progress=False)
        mask = np.asarray(Image.open(out / 'annotations/validation' / f'{held.stem}.png'))
        assert not mask.any() and len(list((out / 'images').rglob(held.name))) == 1
        assert any(note.startswith('1 image is in several sources') for note in report.notes)


def test_a_turned_photograph_that_was_stored_anew_is_known_again(tmp_path):
    photos, mine = tmp_path / 'photos', tmp_path / 'mine'
    exif = Image.Exif()
    exif[274] = 6
    for i in range(5):
        picture(photos / f'{i}.png', i)
        with Image.open(photos / f'{i}.png') as shown:
            shown.transpose(Image.Transpose.ROTATE_90).save(photos / f'{i}.jpg', exif=exif)
        (photos / f'{i}.png').unlink()
        save_labelme(photos, 0, f'{i}.jpg')
    import_dataset(photos, mine, Options(), progress=False)
    names = {path.name for path in (mine / 'images/validation').iterdir()}
    # Of what came of that, and with what `predict` copies of it, too.
    import_dataset([mine, photos], tmp_path / 'more', Options(), progress=False)
    copies = tmp_path / 'copies'
    copies.mkdir()
    (copies / '0.jpg').write_bytes(next((mine / 'images').rglob('0.jpg')).read_bytes())
    save_labelme(copies, 1, '0.jpg')
    for i, sources in enumerate(([mine, photos], [tmp_path / 'more', photos], [mine, copies], [mine, photos, copies])):
        report = import_dataset(sources, tmp_path / f'out{i}', Options(), progress=False)
        assert sum(report.sizes.values()) == 5 and 'in several sources' in report.text()
        assert {path.name for path in (tmp_path / f'out{i}/images/validation').iterdir()} == names
    (mine / 'sources.csv').write_bytes(b'image,pixels\n\xff')        # then it is as good as another photograph
    assert sum(import_dataset([mine, photos], tmp_path / 'out9', Options(), progress=False).sizes.values()) == 10


def test_names_unite_sources_whatever_their_order_and_values_without_names_are_refused(source, corrected, tmp_path):
    save_masks(source, Image.fromarray)
    with pytest.raises(UserError, match=rf'{source} has masks of class indices, without names.*--classes'):
        import_dataset([source, corrected], tmp_path / 'out', Options(), progress=False)
    with pytest.raises(UserError, match='bike'):
        import_dataset([source, corrected], tmp_path / 'out', Options(classes=NAMES), progress=False)
    with pytest.raises(UserError, match=r"did you mean 'bike'"):
        import_dataset([source, corrected], tmp_path / 'out', Options(classes=(*NAMES, 'bike'), rename={'bik': 'x'}),
                       progress=False)
    with pytest.raises(UserError, match='given twice'):
        import_dataset([source, source], tmp_path / 'out', Options(classes=NAMES), progress=False)
    # An option is of use where it is of any source.
    with pytest.raises(UserError, match=r'--exif is upright.*Labelme JSON'):
        import_dataset([corrected], tmp_path / 'out', Options(exif='upright'), progress=False)
    options = Options(classes=(*NAMES, 'tree'), rename={'bike': 'car'}, exif='upright')
    about = import_dataset([corrected, source], tmp_path / 'out', options, progress=False).description
    assert about.classes == (*NAMES, 'tree')
    mask = np.asarray(Image.open(next((tmp_path / 'out/annotations').rglob('a.png'))))
    np.testing.assert_array_equal(mask, truth())


def test_sources_named_train_and_val_are_the_splits(source, tmp_path):
    sides = {}
    for seed, name in enumerate(('train', 'val')):
        for i in range(2):
            picture(tmp_path / name / f'{name}{i}.png', 2 * seed + i)
            Image.fromarray(truth(i)).save(tmp_path / name / f'{name}{i}_mask.png')
        sides[name] = tmp_path / name
    report = import_dataset([*sides.values()], tmp_path / 'out', Options(classes=NAMES), progress=False)
    assert 'as the names of the sources say' in report.text()
    assert {path.stem for path in (tmp_path / 'out/images/validation').iterdir()} == {'val0', 'val1'}
    names = tmp_path / 'list.txt'
    names.write_text('train/train1\n')
    import_dataset([*sides.values()], tmp_path / 'out2', Options(classes=NAMES, val_list=names), progress=False)
    assert {path.stem for path in (tmp_path / 'out2/images/validation').iterdir()} == {'train1'}


def save_pairs(folder, seeds):
    for seed in seeds:
        picture(folder / f'{seed}.png', seed)
        Image.fromarray(truth(seed % 4)).save(folder / f'{seed}_mask.png')
    return folder


def test_a_side_whose_images_are_all_on_the_other_in_an_earlier_source_is_told(tmp_path):
    sources = save_pairs(tmp_path / 'train', (1, 2, 3)), save_pairs(tmp_path / 'val', (2, 3))
    with pytest.raises(UserError, match=r'no labelled image is for validation .*2 images are in several sources'):
        import_dataset(sources, tmp_path / 'out', Options(classes=NAMES), progress=False)
    assert not (tmp_path / 'out').exists()


def test_a_list_of_validation_images_may_name_any_of_the_copies_of_an_image(tmp_path):
    sources = save_pairs(tmp_path / 'old', (1, 2, 3)), save_pairs(tmp_path / 'new', (2, 3, 4))
    names = tmp_path / 'list.txt'
    names.write_text('new/2.png\nold/3.png\n')
    import_dataset(sources, tmp_path / 'out', Options(classes=NAMES, val_list=names), progress=False)
    assert {path.stem[0] for path in (tmp_path / 'out/images/validation').iterdir()} == {'2', '3'}


def test_classes_that_no_source_has_keep_their_numbers_beside_a_palette(tmp_path):
    palette = tmp_path / 'palette.txt'
    palette.write_text(''.join(f'{" ".join(map(str, color))} {name}\n'
                               for color, name in zip(COLORS, NAMES, strict=True)))
    sources = []
    for i in range(2):
        sources.append(tmp_path / f'part{i}')
        for seed in range(2):
            picture(sources[i] / f'{seed}.png', 2 * i + seed)
            colored(truth(seed)).save(sources[i] / f'{seed}_mask.png')
    options = Options(classes=('tree', *NAMES), palette=palette)
    about = import_dataset(sources, tmp_path / 'out', options, progress=False).description
    assert about.classes == options.classes and len({*map(tuple, about.palette)}) == 4


@pytest.mark.parametrize('format_name', ['labelme', 'coco'])
def test_images_that_were_predicted_where_they_are_do_not_come_twice(source, tmp_path, format_name):
    (source / 'predict.json').write_text('{}')
    (source / 'classes.json').write_text('{}')
    save_coco(source)
    (source / 'annotations.json').rename(source / 'coco.json')
    for seed, name in enumerate(('a.png', 'deep/B 2.PNG')):
        picture(source / 'labelme' / name, seed)
        save_labelme(source / 'labelme', seed, name)
    report = convert(source, format=format_name)
    assert masks_of(source).keys() == {'a', 'B 2'} and report.description.unlabelled == 0 and not report.left_out


@pytest.mark.parametrize(('change', 'message'), [
    (lambda mine: Image.fromarray(np.full((HEIGHT, WIDTH), 9, np.uint8)).save(next(mine.rglob('annotations/*/a.png'))),
     r'hold 9\. Expected: 0 to 2'),
    (lambda mine: (mine / 'dataset.json').write_text((mine / 'dataset.json').read_text()[:-9]), 'dataset.json')])
def test_a_data_set_that_was_damaged_is_not_added_to(mine, corrected, tmp_path, change, message):
    change(mine)
    with pytest.raises(UserError, match=message):
        import_dataset([mine, corrected], tmp_path / 'both', Options(), progress=False)
