"""Masks in picture files: class indices, of one channel or a palette, and colours."""
import contextlib
import difflib
from functools import partial

import numpy as np

from ...errors import UserError, quantity
from ..exif import UPRIGHT, orientation, upright, upright_size
from .classes import classes_of_colors, classes_of_values
from .options import Options
from .pairing import Pairs, pair
from .palettes import packed, read_palette
from .pictures import opened
from .samples import Sample, Source
from .tree import LeftOut, Tree
from .turned import Turned

# Masks that are looked at to tell colours from indices.
LOOKED_AT = 8
JPEG = ('.jfif', '.jpeg', '.jpg')


def pairs_of(tree: Tree, options: Options) -> Pairs:
    """Images and masks of a source.

    Raises:
        UserError: No mask is found for any image; says what is there.
    """
    pictures = tree.pictures()
    folder = options.masks and options.masks.as_posix()
    if folder and (options.masks.is_absolute() or '..' in options.masks.parts or not (tree.root / folder).is_dir()):
        whole = (tree.root / folder).resolve()
        near = [whole.relative_to(tree.root).as_posix()] if whole.is_dir() and whole.is_relative_to(tree.root) else (
            difflib.get_close_matches(folder, sorted({file.rpartition('/')[0] for file in tree.files}), 1))
        raise UserError(f'--masks {folder} is no folder of {tree.root}'
                        f'{f"; did you mean {near[0]}?" if near else ""} Expected: a path below the source.')
    found = pair(pictures, options.mask_suffix, options.image_suffix, folder)
    if not any(found.masks.values()):
        if not pictures:
            shown = f'its {len(tree.files)} files are others, such as {tree.files[0]}' if tree.files else 'it is empty'
            left_out = ''.join(f'\n  {entry.path} {entry.reason}' for entry in tree.left_out[:10])
            raise UserError(f'no picture is in {tree.root}: {shown}.{left_out} Expected: images and what was labelled '
                            'in them. Next: check the path.')
        raise UserError(
            f'no image with a mask was found in {tree.root}: {len(pictures)} pictures, such as '
            f'{", ".join(pictures[:6])}. '
            'Expected: masks '
            'with the names of the images, in a folder of their own (images/a.jpg, masks/a.png) or with an end to the '
            "name (a.jpg, a_mask.png); Labelme, COCO or CVAT files. Next: name the end of the masks' names, "
            "--mask-suffix '_mask.png', or their folder, --masks FOLDER."
            + ''.join(f'\n  {mask} {reason}' for mask, reason in [*found.doubtful.items()][:5])
        )
    return found


def read_index_masks(tree: Tree, options: Options) -> Source:
    """Masks of one channel, or of a palette, whose values are classes."""
    pairs = pairs_of(tree, options)
    lossy = any(mask.lower().endswith(JPEG) for mask in masks_of(pairs))
    return source_of(tree, options, pairs, read_values, partial(classes_of_values, options=options, lossy=lossy))


def read_color_masks(tree: Tree, options: Options) -> Source:
    """Masks of three channels, whose colours are classes."""
    palette = read_palette(options.palette) if options.palette else None
    pairs = pairs_of(tree, options)
    indices = palette is None and options.format == 'auto' and palettes_differ(tree, masks_of(pairs))
    return source_of(tree, options, pairs, read_colors, partial(
        classes_of_colors, options=options, palette=palette, may_be_indices=indices))


def masks_of(pairs):
    return [mask for mask in pairs.masks.values() if mask]


def source_of(tree, options, pairs, read, classes):
    turned = Turned(options.exif, partial(sizes_of, tree, pairs))
    samples = [
        Sample(tree.path(image), image, mask and partial(upright_labels, image, tree.path(mask), turned, read), mask)
        for image, mask in pairs.masks.items()
    ]
    unpaired = [LeftOut(mask, 'is a mask without an image') for mask in pairs.unpaired]
    unpaired += [LeftOut(mask, reason) for mask, reason in pairs.doubtful.items()]
    masks = sum(sample.read is not None for sample in samples)
    notes = [f'{pairs.rule}: {masks} of {len(samples)} images have one']
    if pairs.others:
        notes.append(f'{quantity(len(pairs.others), "picture")} taken for other masks of the images, and not imported, '
                     f'such as {pairs.others[0]}. If they are images: --mask-suffix with the end of the masks alone')
    return Source(samples, unpaired, notes, classes, turned.advice)


def sizes_of(tree, pairs):
    """Image files, and the sizes of their masks that have no EXIF turn themselves."""
    for image, mask in pairs.masks.items():
        if mask:
            with contextlib.suppress(ValueError), opened(tree.path(mask)) as file:
                if orientation(file) == UPRIGHT:
                    yield tree.path(image), file.size


def looks_coloured(tree: Tree, options: Options) -> bool:
    """Whether the masks of a source are colours rather than indices: the user has a palette for them, some that are
    looked at have channels that differ, or an index is not one colour in all of them.
    """
    if options.palette:
        return True
    masks = masks_of(pairs_of(tree, options))
    for mask in masks[::max(1, len(masks) // LOOKED_AT)]:
        try:
            with opened(tree.path(mask)) as file:
                if file.mode in ('RGB', 'RGBA', 'CMYK') and channels_differ(np.asarray(file.convert('RGB'))):
                    return True
        except ValueError:
            continue
    return palettes_differ(tree, masks)


def palettes_differ(tree: Tree, masks: list[str]) -> bool:
    """Whether an index stands for several colours in masks with palettes, as where a paint program numbered the colours
    of each file anew. Masks of indices, as of PASCAL VOC, have one palette, or parts of it.
    """
    palettes, paletted, colors = set(), [], {}
    for mask in masks:
        with contextlib.suppress(ValueError), opened(tree.path(mask)) as file:
            if file.mode == 'P' and file.palette:
                palettes.add(bytes(file.palette.palette or b''))
                paletted.append(mask)
    longest = max(palettes, key=len, default=b'')
    if all(longest.startswith(palette) for palette in palettes):
        return False
    for mask in paletted:       # colours of which no pixel is do not matter
        with contextlib.suppress(ValueError), opened(tree.path(mask)) as file:
            indices = np.flatnonzero(np.bincount(np.asarray(file).ravel()))
            palette = np.array(file.getpalette('RGB')).reshape(-1, 3)
            for index in indices[indices < len(palette)].tolist():
                if colors.setdefault(index, (*palette[index].tolist(), )) != (*palette[index].tolist(), ):
                    return True
    return False


def channels_differ(pixels):
    return bool((pixels[..., :1] != pixels[..., 1:]).any())


def upright_labels(relative, mask, turned, read, facts):
    """The labels in a mask file, as viewers show its image.

    Raises:
        ValueError: It cannot be read, or does not fit its image.
    """
    try:
        with opened(mask) as file:
            size, turn = upright_size(file), orientation(file)
            possible = (facts.size, facts.stored_size) if turn == UPRIGHT else (facts.size, )
            if size not in possible:
                raise ValueError(f'is {size[0]}×{size[1]} pixels, its image {facts.size[0]}×{facts.size[1]}')
            stored = turn == UPRIGHT and turned.is_stored(relative, facts, size)
            return upright(read(file), facts.turn if stored else turn)
    except ValueError as error:
        raise ValueError(f'has the mask {mask.name}, which {error}') from error


def read_values(file):
    if file.mode in ('RGB', 'RGBA'):        # greys that a paint program saved in three channels
        pixels = np.asarray(file.convert('RGB'))
        if channels_differ(pixels):
            raise ValueError('has colours, as no other mask has. Next: --format color if all are coloured')
        return pixels[..., 0].astype(np.int32)
    if file.mode == 'LA':
        return np.asarray(file)[..., 0].astype(np.int32)
    if file.mode == '1':
        return np.asarray(file).astype(np.int32)
    if file.mode in ('L', 'P') or file.mode.startswith('I'):
        values = np.asarray(file)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f'has values from {values.min()} to {values.max()}; expected: class indices')
        return values.astype(np.int32)
    raise ValueError(f'has the mode {file.mode}; expected: one channel, or a palette')


def read_colors(file):
    if file.mode in ('I', 'F') or file.mode.startswith('I;'):
        raise ValueError('has 16 bits; expected: colours of 8 bits a channel')
    return packed(np.asarray(file.convert('RGBA').convert('RGB') if file.mode == 'P' else file.convert('RGB')))
