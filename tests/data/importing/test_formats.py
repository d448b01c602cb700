"""Each format on two images made by hand."""
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from two_images import (
    COLORS,
    HEIGHT,
    NAMES,
    WIDTH,
    assert_is_truth,
    colored,
    convert,
    masks_of,
    paletted,
    save_coco,
    save_cvat,
    save_labelme,
    save_masks,
    truth,
)

from inceptionnext_seg.cli import import_dataset as tool
from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.importing import Options, Unconfirmed, import_dataset
from inceptionnext_seg.errors import UserError

# Masks


@pytest.mark.parametrize('make', [Image.fromarray, paletted, lambda classes: Image.fromarray(classes + 1),
                                  lambda classes: Image.fromarray(np.stack([classes] * 3, 2)),
                                  lambda classes: Image.fromarray((classes * 100).astype(np.uint8))])
@pytest.mark.parametrize(
    'ends',
    [
        ('a_mask.png', 'deep/B 2_mask.PNG'),
        ('masks/a.png', 'masks/deep/B 2.png'),
        ('a_gtFine_labelIds.png', 'deep/B 2_gtFine_labelIds.png'),
        ('a-x9.png', 'deep/B 2-x9.png'),
    ],
)
def test_index_masks_of_any_numbering_and_name_are_one_data_set(source, make, ends):
    save_masks(source, make, ends)
    report = convert(source, classes=NAMES)
    assert report.left_out == []
    assert_is_truth(source)


def test_the_end_of_the_masks_names_is_reported_and_cityscapes_other_masks_are_no_images(source):
    for name in ('a', 'deep/B 2'):
        (source / f'{name}.png').rename(source / f'{name}_leftImg8bit.png') if name == 'a' else (
            source / f'{name}.PNG').rename(source / f'{name}_leftImg8bit.png')
        for kind in ('labelIds', 'color', 'instanceIds'):
            Image.fromarray(truth()).save(source / f'{name}_gtFine_{kind}.png')
    report = convert(source, classes=NAMES)
    assert "'_gtfine_labelids'" in report.text() and '2 of 2 images' in report.text()
    assert masks_of(source).keys() == {'a_leftImg8bit', 'B 2_leftImg8bit'}


def test_colour_masks_are_read_by_a_palette_file_of_any_kind(source, tmp_path):
    save_masks(source, colored)
    texts = {'a.txt': '\n'.join(f'{r} {g} {b}  {name} # x' for (r, g, b), name in zip(COLORS, NAMES, strict=True)),
             'labelmap.txt': '# label:color_rgb:parts:actions\n' + '\n'.join(
                 f'{name}:{r},{g},{b}::' for (r, g, b), name in zip(COLORS, NAMES, strict=True)),
             'class_dict.csv': 'name, r, g, b\n' + '\n'.join(
                 f'{name},{r},{g},{b}' for (r, g, b), name in zip(COLORS, NAMES, strict=True)),
             'a.json': json.dumps(dict(zip(NAMES, COLORS, strict=True)))}
    for i, (name, text) in enumerate(texts.items()):
        (tmp_path / name).write_text(text)
        import_dataset(source, tmp_path / f'out{i}', Options(palette=tmp_path / name, val=0.5), progress=False)
        about = read_description(tmp_path / f'out{i}')
        assert about.classes == NAMES and [*map(tuple, about.palette)] == [*COLORS]
        assert (np.asarray(Image.open(next((tmp_path / f'out{i}').rglob('annotations/*/a.png')))) == truth()).all()


def test_learned_colours_are_written_and_used_only_when_they_are_confirmed(source, tmp_path, capsys):
    save_masks(source, colored)
    arguments = [str(source), '--out', str(tmp_path / 'out'), '--val', '0.5']
    assert tool.main(arguments) == 3
    palette = tmp_path / 'out.palette.txt'
    assert str(palette) in capsys.readouterr().out and not (tmp_path / 'out').exists()
    text = palette.read_text()
    assert '128  64 128  color_804080' in text and 'in 2 of 2 masks' in text
    palette.write_text(
        text.replace('color_804080', 'road').replace('color_400080', 'car').replace('color_4682b4', 'ignore')
    )
    assert tool.main([*arguments, '--palette', str(palette)]) == 0
    assert read_description(tmp_path / 'out').classes == ('road', 'car')
    assert (masks_of(source)['a'] == np.where(truth() == 2, 255, truth())).all()
    assert tool.main([str(source), '--out', str(tmp_path / 'accepted'), '--yes']) == 0
    with pytest.raises(SystemExit):     # the palette that a person may have edited is not written over
        tool.main([str(source), '--out', str(tmp_path / 'out2'), '--palette', str(tmp_path / 'none.txt')])
    assert 'none.txt cannot be read' in capsys.readouterr().err


def test_colours_of_smoothed_masks_need_a_palette_and_take_the_nearest(source, tmp_path):
    noise = np.random.default_rng(0)

    def smoothed(classes):
        return Image.fromarray(
            (np.array(COLORS)[classes] + noise.integers(-9, 10, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8)
        )

    save_masks(source, smoothed)
    with pytest.raises(Unconfirmed, match='smoothed') as learned:
        convert(source, accept=True)
    # A colour a class, not one for each of its shades: with the tolerance that the message names it is the truth.
    assert learned.value.text.count('color_') == 3 and learned.value.tolerance == 40
    (tmp_path / 'p.txt').write_text('\n'.join(f'{r} {g} {b} {n}' for (r, g, b), n in zip(COLORS, NAMES, strict=True)))
    with pytest.raises(UserError, match=r'colours that .*p\.txt does not.*(?s:.)*--tolerance'):
        convert(source, palette=tmp_path / 'p.txt')
    convert(source, palette=tmp_path / 'p.txt', tolerance=10)
    assert_is_truth(source)


def test_yes_takes_the_colours_that_smoothed_masks_were_meant_to_have_and_mixtures_at_borders_do_not_count(
        source, tmp_path, capsys):
    random, colors = np.random.default_rng(0), np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])

    def smoothed(classes):
        pixels = colors[large(classes)]
        pixels = pixels + random.integers(-9, 10, pixels.shape)
        mixed = random.random(pixels.shape[:2]) < 0.05
        return Image.fromarray(np.where(mixed[..., None], random.integers(0, 256, pixels.shape), pixels)
                               .clip(0, 255).astype(np.uint8))

    enlarge(source)
    save_masks(source, smoothed)
    (source / 'c.HEIC').write_bytes(b'x')
    arguments = [str(source), '--out', str(tmp_path / 'out'), '--val', '0.5']
    assert tool.main(arguments) == 3
    said = capsys.readouterr().out
    assert '--tolerance 40' in said and 'c.HEIC' in said and said.count('color_') == 3
    assert tool.main([*arguments, '--yes']) == 1       # 1: the HEIC file
    assert 'do not count' in capsys.readouterr().out
    about, mask = read_description(tmp_path / 'out'), masks_of(source)['a']
    order = [min(range(3), key=lambda i: np.abs(np.array(color, int) - colors[i]).max()) for color in about.palette]
    counted = mask != 255
    assert 0.9 < counted.mean() < 1
    assert (np.array(order)[mask[counted]] == large(truth())[counted]).mean() > 0.98


@pytest.mark.parametrize('kind', ['RGB', 'JPEG'])
def test_smoothed_black_and_white_masks_are_two_classes_and_not_a_hundred(source, kind):
    def smoothed(classes):
        image = Image.fromarray((classes == 1).astype(np.uint8) * 255).resize(LARGE)
        return jpeg(image) if kind == 'JPEG' else image.convert('RGB')

    enlarge(source)
    save_masks(source, smoothed)
    with pytest.raises(UserError, match='--tolerance 127'):
        convert(source)
    convert(source, tolerance=127)
    assert read_description(source.parent / 'out').classes == ('background', 'foreground')
    white = np.asarray(smoothed(truth()).convert('L')) > 127
    assert (masks_of(source)['a'] == white).all()


LARGE = WIDTH * 8, HEIGHT * 8


def large(array):
    return array.repeat(8, 0).repeat(8, 1)


def enlarge(source):
    for name in ('a.png', 'deep/B 2.PNG'):
        with Image.open(source / name) as image:
            image.resize(LARGE).save(source / name)


def jpeg(image):
    """As it is after it was stored as JPEG."""
    content = io.BytesIO()
    image.save(content, 'JPEG', quality=90)
    return Image.open(content)


@pytest.mark.parametrize('folder', ['', 'x/'])
def test_png_files_with_the_names_of_jpeg_files_are_their_masks(source, folder):
    for name in ('a.png', 'deep/B 2.PNG'):
        with Image.open(source / name) as image:
            image.save((source / name).with_suffix('.JPG'), 'JPEG')
        (source / name).unlink()
    save_masks(source, Image.fromarray, (f'{folder}a.png', f'{folder}deep/B 2.png'))
    report = convert(source, classes=NAMES)
    assert report.left_out == [] and '2 of 2 images' in report.text()
    assert_is_truth(source)


def test_a_category_of_coco_is_no_class_only_where_no_file_has_an_annotation_of_it(source):
    save_coco(source)
    [file] = source.rglob('*.json')
    content = json.loads(file.read_text())
    content['categories'].append(dict(id=77, name='never'))
    file.write_text(json.dumps(content))
    file.with_name('val.json').write_text(json.dumps(content | dict(images=[], annotations=[])))
    [note] = [note for note in convert(source).notes if 'no class' in note]
    assert note.startswith('1 category is no class') and ': never.' in note


def test_a_folder_without_a_picture_is_said_to_be_empty_or_to_hold_other_files(tmp_path):
    with pytest.raises(UserError, match='it is empty'):
        convert(tmp_path / 'x' if (tmp_path / 'x').mkdir() is None else None)


def test_masks_of_0_and_255_are_background_and_foreground(source):
    save_masks(source, lambda classes: Image.fromarray((classes == 1).astype(np.uint8) * 255))
    convert(source)
    assert read_description(source.parent / 'out').classes == ('background', 'foreground')
    assert (masks_of(source)['a'] == (truth() == 1)).all()


def test_zero_is_a_class_or_not_labelled_as_the_user_says_and_an_ambiguous_count_names_both_ways(source):
    save_masks(source, Image.fromarray)
    with pytest.raises(
        UserError, match=r'0, 1, 2, and --classes names 2.*--reduce-zero-label.*--classes background,car,'
    ):
        convert(source, classes=('car', 'sky'))
    with pytest.raises(UserError, match=r'--overlap is small, .* masks of class indices.*coco, labelme, cvat'):
        convert(source, overlap='small')
    convert(source, classes=('car', 'sky'), reduce_zero_label=True)
    assert (masks_of(source)['a'] == truth().astype(np.int16) - 1 + 256 * (truth() == 0)).all()


# Labelme, COCO, CVAT


def test_labelme_polygons_are_the_class_map_that_they_were_made_of(source):
    for seed, name in enumerate(('a.png', 'deep/B 2.PNG')):
        save_labelme(source, seed, name)
    assert convert(source).left_out == []
    assert_is_truth(source)
    with pytest.raises(UserError, match=r'--exif is stored, and the source is read as Labelme JSON.*leave --exif out'):
        import_dataset(source, source.parent / 'again', Options(exif='stored'), progress=False)
    with pytest.raises(UserError, match=r'--tolerance is 9, .* read as Labelme JSON.*color, index.*leave'):
        import_dataset(source, source.parent / 'again', Options(tolerance=9), progress=False)
    assert not (source.parent / 'again').exists()


def test_labelmes_masks_and_embedded_images_are_read_and_its_ignore_label_does_not_count(source):
    save_labelme(source, 1, 'deep/B 2.PNG')
    content = io.BytesIO()
    Image.fromarray((truth()[5:9, 2:8] == 1).astype(np.uint8) * 255).save(content, 'PNG')
    shapes = [
        dict(label='__ignore__', points=[[0, 0], [15, 3]], shape_type='rectangle'),
        dict(
            label='car', points=[[2, 5], [7, 8]], shape_type='mask', mask=base64.b64encode(content.getvalue()).decode()
        ),
    ]
    image = base64.b64encode((source / 'a.png').read_bytes()).decode()
    save_labelme(source, 0, 'a.png', shapes=shapes, imageData=image)
    (source / 'a.png').unlink()
    report = convert(source, classes=('road', 'car', 'sky'), unlabelled='road')
    assert '1 image was inside' in report.text()
    assert (masks_of(source)['a'] == np.where(truth() == 2, 255, truth())).all()


def test_cocos_run_lengths_are_the_class_map_that_they_were_made_of(source):
    save_coco(source)
    assert convert(source).left_out == []
    assert_is_truth(source)
    assert read_description(source.parent / 'out').classes == NAMES


def test_cocos_polygons_cover_whole_pixels_later_ones_or_small_ones_on_top(source):
    def rectangles(content):
        content['annotations'] = [
            dict(id=i, image_id=image, category_id=category, segmentation=[[x0, y0, x1, y0, x1, y1, x0, y1]])
            for i, (image, category, x0, y0, x1, y1) in enumerate([
                (1, 2, 2, 5, 8, 9), (1, 1, 0, 4, 16, 12), (1, 3, -3, -2, 20, 4), (2, 1, 0, 0, 16, 12)])]

    save_coco(source, rectangles)
    convert(source, overlap='small')
    expected = truth()
    expected[6:8, 4:6] = 1      # COCO has no holes
    assert (masks_of(source)['a'] == expected).all()
    assert (masks_of(source)['B 2'] == 0).all()


def test_cvats_masks_boxes_and_polygons_are_drawn_in_their_order_from_back_to_front(source):
    save_cvat(source)
    report = convert(source)
    about = read_description(source.parent / 'out')
    order = np.array([about.classes.index(name) for name in NAMES], np.uint8)
    assert (masks_of(source)['a'] == order[truth()]).all()
    assert about.palette[about.classes.index('car')] == [0x40, 0, 0x80]
    assert "kind 'polyline'" in report.text()
