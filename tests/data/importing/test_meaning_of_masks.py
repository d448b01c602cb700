"""What masks mean where that is easily mistaken: palettes that differ, names of colours, greys in black and white."""
import numpy as np
import pytest
from PIL import Image
from two_images import HEIGHT, NAMES, WIDTH, assert_is_truth, colored, convert, masks_of, paletted, save_masks, truth

from inceptionnext_seg.cli import import_dataset as tool
from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.importing import Options, Unconfirmed, import_dataset
from inceptionnext_seg.errors import UserError

BLACK, RED, GREEN = (0, 0, 0), (200, 0, 0), (0, 200, 0)


def half(color):
    return np.where(np.arange(WIDTH)[None, :, None] < WIDTH // 2, color, BLACK).astype(np.uint8).repeat(HEIGHT, 0)


def save_adaptive(source, *pictures):
    """Colour masks as paint programs save them: each PNG with a palette of its own colours alone."""
    for name, pixels in zip(('a_mask.png', 'deep/B 2_mask.png'), pictures, strict=True):
        image = Image.fromarray(pixels).convert('P', palette=Image.Palette.ADAPTIVE)
        assert (np.asarray(image.convert('RGB')) == pixels).all()
        image.save(source / name)


def palette_file(tmp_path, *lines):
    path = tmp_path / 'palette.txt'
    path.write_text('\n'.join(lines))
    return path


def test_masks_whose_palettes_differ_are_masks_of_colours(source, tmp_path):
    save_adaptive(source, half(RED), half(GREEN))
    with pytest.raises(Unconfirmed, match=r'3 colours.*--format index') as learned:
        convert(source)
    assert {'color_000000', 'color_c80000', 'color_00c800'} <= {*learned.value.text.split()}
    convert(source, palette=palette_file(tmp_path, '0 0 0 bg', '200 0 0 road', '0 200 0 tree'))
    left = np.arange(WIDTH) < WIDTH // 2
    assert (masks_of(source)['a'] == left * 1).all() and (masks_of(source)['B 2'] == left * 2).all()
    report = import_dataset(source, tmp_path / 'indices', Options(format='index', val=0.5), progress=False)
    assert len(report.description.classes) == 2


@pytest.mark.parametrize('rest', [[], [9, 9, 9]])
def test_masks_of_one_palette_are_indices_though_their_files_have_other_colours_that_no_pixel_is_of(source, rest):
    def trimmed(classes):
        image = paletted(classes)
        image.putpalette(image.getpalette()[:3 * (int(classes.max()) + 1)] + rest)
        return image

    (source / 'deep').mkdir(exist_ok=True)
    paletted(truth()).save(source / 'a_mask.png')
    trimmed(truth(1).clip(0, 1)).save(source / 'deep/B 2_mask.png')
    convert(source, classes=NAMES)
    np.testing.assert_array_equal(masks_of(source)['a'], truth())
    np.testing.assert_array_equal(masks_of(source)['B 2'], truth(1).clip(0, 1))


def test_a_palette_is_read_whatever_the_masks_and_refused_where_labels_are_no_colours(source, tmp_path, capsys):
    save_masks(source, paletted)
    arguments = [str(source), '--out', str(tmp_path / 'out'), '--val', '0.5', '--palette']
    with pytest.raises(SystemExit):
        tool.main([*arguments, str(tmp_path / 'none.txt')])
    assert 'none.txt cannot be read' in capsys.readouterr().err
    path = palette_file(tmp_path, '70 130 180 sky', '64 0 128 car', '128 64 128 road')
    with pytest.raises(UserError, match=r'palette\.txt.*masks of class indices.*--format'):
        convert(source, palette=path, format='index')
    convert(source, palette=path)
    assert read_description(tmp_path / 'out').classes == ('sky', 'car', 'road')
    assert_is_truth(source)
    for mask in source.rglob('*_mask.*'):
        mask.unlink()
    save_masks(source, Image.fromarray)
    with pytest.raises(UserError, match=r'1 1 1 (?s:.)*leave --palette out'):
        import_dataset(source, tmp_path / 'out2', Options(palette=path), progress=False)


def test_names_without_a_palette_are_refused_for_colours_but_for_black_as_background(source, tmp_path):
    save_masks(source, colored)
    with pytest.raises(UserError, match=r'3 colours.*128 64 128.*road, car, sky.*--palette'):
        convert(source, classes=NAMES, accept=True)
    save_masks(source, lambda classes: Image.fromarray(half(RED)))
    with pytest.raises(UserError, match='2 colours'):
        convert(source, classes=('ground', 'thing'))
    convert(source, classes=('thing', 'background'))
    about = read_description(tmp_path / 'out')
    assert about.classes == ('thing', 'background') and about.palette == [[*RED], [*BLACK]]
    assert (masks_of(source)['a'] == (np.arange(WIDTH) >= WIDTH // 2)).all()


def test_names_beside_a_palette_are_its_own_in_another_order(source, tmp_path):
    save_masks(source, colored)
    path = palette_file(tmp_path, '128 64 128 road', '64 0 128 car', '70 130 180 sky')
    with pytest.raises(UserError, match=r'--classes.*sky, tree.*road, car, sky'):
        convert(source, palette=path, classes=('sky', 'tree'))
    convert(source, palette=path, classes=('sky', 'road', 'car'))
    assert read_description(tmp_path / 'out').classes == ('sky', 'road', 'car')
    assert_is_truth(source)


def black_and_white(values):
    """White at the left, and single pixels of other values."""
    def make(classes):
        pixels = np.where(np.arange(64) < 30, 255, 0).astype(np.uint8)[None].repeat(48, 0)
        pixels[0, 30:30 + len(values)] = values
        return Image.fromarray(pixels)
    return make


@pytest.fixture
def larger(source):
    for name in ('a.png', 'deep/B 2.PNG'):
        Image.open(source / name).resize((64, 48)).save(source / name)
    return source


@pytest.mark.parametrize('values', [(254, 1), (254, ), (1, )])
def test_a_few_greys_beside_black_and_white_do_not_make_white_ignored(larger, values):
    save_masks(larger, black_and_white(values))
    with pytest.raises(UserError, match=r'--tolerance 127(?s:.)*--format index'):
        convert(larger)
    convert(larger, tolerance=127)
    about = read_description(larger.parent / 'out')
    assert about.classes == ('background', 'foreground')
    assert (masks_of(larger)['a'][1:] == (np.arange(64) < 30)).all()
    # Who says that these are indices has 255 left out, and is told of how much.
    report = import_dataset(larger, larger.parent / 'out2', Options(format='index', val=0.5), progress=False)
    assert any('255 has 46.' in note and '--palette' in note for note in report.notes)


def test_indices_with_a_border_of_255_are_taken_without_a_word(larger):
    def voc(classes):
        pixels = np.zeros((48, 64), np.uint8)
        pixels[10:20, 10:20] = 255
        pixels[11:19, 11:19] = 1
        return Image.fromarray(pixels)

    save_masks(larger, voc)
    report = convert(larger, classes=('ground', 'cow'))
    assert not any('255 has' in note for note in report.notes)
    assert sorted(np.unique(masks_of(larger)['a'])) == [0, 1, 255]


def greys(*values):
    return lambda classes: Image.fromarray(np.array(values, np.uint8)[classes])


def ramp(classes):
    """A mask of many greys, as smoothing or a JPEG file makes of a few."""
    return Image.fromarray((np.array([0, 85, 170])[classes] + np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 25)
                           .astype(np.uint8))


@pytest.mark.parametrize(('make', 'ends'), [
    (ramp, ('masks/a.png', 'masks/deep/B 2.png')), (greys(0, 85, 170), ('masks/a.jpg', 'masks/deep/B 2.jpg'))])
def test_greys_of_masks_that_were_smoothed_or_are_jpeg_files_are_no_classes(source, tmp_path, make, ends):
    save_masks(source, make, ends)
    for names in (None, ('bg', 'leaf')):
        with pytest.raises(UserError, match=r'around 3 greys.*--tolerance 40 and --palette.*--format index'):
            convert(source, classes=names)
    values = np.unique(np.concatenate([np.asarray(Image.open(source / end)).ravel() for end in ends]))
    report = import_dataset(source, tmp_path / 'indices', Options(format='index', val=0.5), progress=False)
    assert len(report.description.classes) == len(values)
    path = palette_file(tmp_path, '0 0 0 road', '85 85 85 car', '170 170 170 sky')
    convert(source, palette=path, tolerance=40)
    assert masks_of(source)['a'][truth() == 0].max() == 0 or make is not ramp


COUNT = WIDTH * HEIGHT


def test_many_classes_that_are_named_are_taken(source, tmp_path):
    for name, seed in (('a_mask.png', 0), ('deep/B 2_mask.PNG', 1)):
        values = np.arange(seed, COUNT + seed, dtype=np.uint8)
        Image.fromarray(values.reshape(HEIGHT, WIDTH)).save(source / name)
    names = tuple(f'class {i}' for i in range(COUNT + 1))
    assert convert(source, classes=names).description.classes == names
    with pytest.raises(UserError, match='--reduce-zero-label'):      # rather than that of greys
        import_dataset(source, tmp_path / 'out2', Options(classes=names[1:]), progress=False)


def test_255_among_greys_is_said_not_to_count_with_the_way_on_and_among_indices_it_is_not(source, tmp_path):
    save_masks(source, greys(0, 128, 255))
    with pytest.raises(UserError, match=r'255, which does not count.*"0 0 0 bg", "128 128 128 leaf", "255 255 255 st'):
        convert(source, classes=('bg', 'leaf', 'stem'))
    for seed, end in enumerate(('a_mask.png', 'deep/B 2_mask.PNG')):
        pixels = truth(seed) // 2 * 128
        pixels[-1, :10] = 255
        Image.fromarray(pixels).save(source / end)
    assert any('255 has 5.2 %' in note and '"255 255 255 NAME"' in note for note in convert(source).notes)
    for end in ('a_mask.png', 'deep/B 2_mask.PNG'):
        Image.fromarray(np.where(np.asarray(Image.open(source / end)) == 128, 1, np.asarray(Image.open(source / end)))
                        .astype(np.uint8)).save(source / end)
    report = import_dataset(source, tmp_path / 'out2', Options(val=0.5, format='index'), progress=False)
    assert not any('255 has' in note for note in report.notes)


def test_masks_from_1_on_whose_last_class_is_unseen_are_noted(source):
    save_masks(source, greys(1, 2, 2))
    report = convert(source, classes=NAMES)
    assert any("If 1 is 'road': --reduce-zero-label" in note for note in report.notes)
    report = import_dataset(source, source.parent / 'out2', Options(classes=NAMES, reduce_zero_label=True, val=0.5),
                            progress=False)
    assert report.description.splits['training']['pixels'][0] > 0


def test_a_class_that_is_left_out_is_not_said_to_be_0_and_one_class_alone_not_to_train(source):
    save_masks(source, greys(0, 255, 255))
    with pytest.raises(UserError) as error:
        convert(source, classes=NAMES)
    assert '--rename' not in str(error.value)
    report = convert(source, classes=('background', 'leaf'), rename={'background': 'ignore'})
    assert not any(note.startswith('0 in the masks') for note in report.notes)
    assert any("one class, 'leaf'" in note and 'two or more' in note for note in report.notes)
    report = import_dataset(source, source.parent / 'out2', Options(classes=('soil', 'leaf'), val=0.5), progress=False)
    assert any("0 in the masks is the class 'soil'" in note for note in report.notes)
