"""Which picture is the mask of which image, by names and folders alone."""
import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import NamedTuple

from .tree import shared_folders

# Ends of the names of masks, as data sets and tools write them; of two that fit alike, the first.
MASK_ENDS = (
    '_gtfine_labeltrainids',
    '_gtcoarse_labeltrainids',
    '_gtfine_labelids',
    '_gtcoarse_labelids',
    '_labelids',
    '_gtfine_color',
    '_gtcoarse_color',
    '_gtfine_instanceids',
    '_gtcoarse_instanceids',
    '_mask',
    '-mask',
    '.mask',
    '_masks',
    ' mask',
    '_label',
    '-label',
    '_labels',
    '_seg',
    '-seg',
    '_segmentation',
    '_gt',
    '-gt',
    '_groundtruth',
    '_annotation',
    '_manual1',
    '_l',
)
IMAGE_ENDS = ('_leftimg8bit', '_image', '-image', '_img', '-img', '_rgb', '_sat', '')
MASK_FOLDER = re.compile(
    r'(annotations?|ann_dir|anns?|masks?|msks?|labels?|labelled|gt|gtfine|gtcoarse|ground_?truth|segs?|segmentations?'
    r'|segmentationclass(raw|png|aug)?|index(ed)?_?(labels?|masks?)?|class_numbers|targets?'
    r'|(train|val|test)_?(annot|labels?|masks?)'
    r'|(colou?r|rgb)_?(labels?|masks?))',
    re.I,
)


class Pairs(NamedTuple):
    """Images and masks of a source.

    Attributes:
        masks (dict[str, str | None]): From image to its mask.
        unpaired (list[str]): Masks without an image.
        others (list[str]): Pictures that are taken for other masks of an image, such as Cityscapes' of colours.
        rule (str): How they were told apart, in words.
    """
    masks: dict[str, str | None]
    unpaired: list[str]
    others: list[str]
    rule: str


def stem(file: str) -> str:
    return PurePosixPath(file).stem.casefold()


def without_end(name: str, ends) -> str:
    return next((name[:len(name) - len(end)] for end in ends if end and name.endswith(end) and name != end), name)


def in_mask_folder(file: str) -> bool:
    return any(MASK_FOLDER.fullmatch(part) for part in PurePosixPath(file).parts[:-1])


def learned_ends(pictures) -> list[str]:
    """What the names of a good part of the pictures have beyond that of another picture in their folder."""
    names = defaultdict(set)
    for file in pictures:
        names[PurePosixPath(file).parent].add(stem(file))
    ends = Counter()
    for inside in names.values():
        for name in inside:
            ends.update(name[k:] for k in range(1, len(name)) if name[:k] in inside)
    return [end for end, count in ends.most_common(3) if count > 1 and not end.isdecimal()]


def pair(pictures: list[str], mask_suffix: str | None = None, image_suffix: str | None = None,
         masks_folder: str | None = None) -> Pairs:
    """Tell images from masks, and give each image its mask.

    Args:
        pictures (list[str]): Files below the source.
        mask_suffix (str | None), image_suffix (str | None): Ends of the names, extension included or not, where the
            user says them.
        masks_folder (str | None): The folder below the source that holds the masks alone.
    """
    ends = IMAGE_ENDS if image_suffix is None else (stripped(image_suffix), )
    if masks_folder is not None:
        inside = [file for file in pictures if file.startswith(masks_folder.rstrip('/') + '/')]
        marker = stripped(mask_suffix) if mask_suffix else ''
        inside = [file for file in inside if stem(file).endswith(marker)]
        return joined(pictures, inside, marker, ends, f'masks are in the folder {masks_folder}')
    if mask_suffix is not None:
        marker = stripped(mask_suffix)
        chosen = [file for file in pictures if has_end(file, mask_suffix)]
        return joined(pictures, chosen, marker, ends, f'masks are the files that end in {mask_suffix}')
    best = joined(pictures, [], '', ends, '')
    by_folder = [file for file in pictures if in_mask_folder(file)]
    rules = [(by_folder, '', 'masks are in folders of their own')] if by_folder else []
    for marker in dict.fromkeys((*MASK_ENDS, *learned_ends(pictures))):
        found = [file for file in pictures if stem(file).endswith(marker) and stem(file) != marker]
        if found:
            rules.append((found, marker, f'masks are the files whose names end in {marker!r} before the extension'))
    for chosen, marker, rule in rules:
        found = joined(pictures, chosen, marker, ends, rule)
        if count(found) > count(best):
            best = found
    return best if count(best) else by_extension(pictures, ends) or best


def by_extension(pictures, ends):
    """Photographs as JPEG files, each with a PNG file of its name, beside it or elsewhere; None where they are not."""
    masks = [file for file in pictures if file.lower().endswith('.png')]
    images = [file for file in pictures if file.lower().endswith(('.jpg', '.jpeg', '.jfif'))]
    if not masks or len(masks) + len(images) < len(pictures):
        return None
    found = joined(pictures, masks, '', ends, 'masks are the PNG files, and images the JPEG files of the same names')
    # PNG files of which some are no image's are as likely photographs.
    return found if count(found) and not found.unpaired else None


def count(pairs):
    return sum(mask is not None for mask in pairs.masks.values())


def stripped(suffix):
    """An end of names, without the extension."""
    return re.sub(r'\.(bmp|gif|jfif|jpe?g|p[gnp]m|png|tiff?|webp)$', '', suffix.casefold())


def has_end(file, suffix):
    whole, name = PurePosixPath(file).name.casefold(), suffix.casefold()
    return whole.endswith(name) if stripped(suffix) != name else stem(file).endswith(name)


def joined(pictures, masks, marker, image_ends, rule):
    """Pairs for one rule: an image's mask has its name, and shares the most folders with it."""
    chosen, by_name = set(masks), defaultdict(list)
    for file in masks:
        name = stem(file)
        by_name[without_end(name[:len(name) - len(marker)] if marker else name, image_ends)].append(file)
    # Another kind of mask, beside the one chosen, is no image.
    kinds = [end for end in MASK_ENDS if end != marker] if marker in MASK_ENDS else []
    names = {without_end(stem(file), image_ends) for file in pictures if file not in chosen}
    others = [file for file in pictures if file not in chosen and (
        any(stem(file).endswith(end) and stem(file)[:-len(end)] in names for end in kinds)
        or (masks and is_other_kind(file, by_name, image_ends)))]
    apart = chosen.union(others)
    images = [file for file in pictures if file not in apart]
    found, used = {}, set()
    for file in images:
        near = by_name.get(without_end(stem(file), image_ends), [])
        mask = max(near, key=lambda other: agreement(file, other), default=None)
        # Two images with one name, a.jpg and a.png beside each other, have one mask: it is of the first.
        found[file] = None if mask in used else mask
        used.add(mask)
    return Pairs(found, sorted(chosen - used), others, rule)


def is_other_kind(file, by_name, image_ends):
    """Whether a picture in a folder of masks is another mask of an image: no image is there."""
    return in_mask_folder(file) and any(end and stem(file).endswith(end) for end in MASK_ENDS) and without_end(
        without_end(stem(file), MASK_ENDS), image_ends) in by_name


def agreement(image, mask):
    """How well two paths agree, but for the folder names of images and of masks."""
    own, other = (Counter(part.casefold() for part in PurePosixPath(file).parts[:-1]) for file in (image, mask))
    return (own & other).total(), shared_folders(image, mask)
