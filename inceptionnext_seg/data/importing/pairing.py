"""Which picture is the mask of which image, by names and folders alone."""
import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import NamedTuple

from .naming import are_numbered
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
IMAGE_FOLDER = re.compile(
    r'(images?|imgs?|img_dir|jpe?g_?images?|pictures?|photos?|photographs?|rgb|colou?r|frames?|leftimg8bit)', re.I)


class Pairs(NamedTuple):
    """Images and masks of a source.

    Attributes:
        masks (dict[str, str | None]): From image to its mask.
        unpaired (list[str]): Masks without an image.
        others (list[str]): Pictures that are taken for other masks of an image, such as Cityscapes' of colours.
        rule (str): How they were told apart, in words.
        doubtful (dict[str, str]): From masks that are not given to an image to the reason, as the end of a sentence.
    """
    masks: dict[str, str | None]
    unpaired: list[str]
    others: list[str]
    rule: str
    doubtful: dict[str, str]


def stem(file: str) -> str:
    return PurePosixPath(file).stem.casefold()


def without_end(name: str, ends) -> str:
    return next((name[:len(name) - len(end)] for end in ends if end and name.endswith(end) and name != end), name)


def in_folder(file: str, names: re.Pattern) -> bool:
    return any(names.fullmatch(part) for part in PurePosixPath(file).parts[:-1])


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
        masks_folder = masks_folder.rstrip('/')
        inside = [file for file in pictures if file.startswith(f'{masks_folder}/')]
        marker = stripped(mask_suffix) if mask_suffix else ''
        inside = [file for file in inside if stem(file).endswith(marker)]
        return joined(pictures, inside, marker, ends, f'masks are in the folder {masks_folder}', masks_folder)
    if mask_suffix is not None:
        marker = stripped(mask_suffix)
        chosen = [file for file in pictures if has_end(file, mask_suffix)]
        return joined(pictures, chosen, marker, ends, f'masks are the files that end in {mask_suffix}')
    best = joined(pictures, [], '', ends, '')
    by_folder = [file for file in pictures if in_folder(file, MASK_FOLDER)]
    rules = [(by_folder, '', 'masks are in folders of their own')] if by_folder else []
    for marker in dict.fromkeys((*MASK_ENDS, *learned_ends(pictures))):
        found = [file for file in pictures if stem(file).endswith(marker) and stem(file) != marker]
        if found:
            rules.append((found, marker, f'masks are the files whose names end in {marker!r} before the extension'))
    for chosen, marker, rule in rules:
        found = joined(pictures, chosen, marker, ends, rule)
        if count(found) > count(best) or (found.doubtful and not (count(best) or best.doubtful)):
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
    return found if count(found) and not (found.unpaired or found.doubtful) else None


def count(pairs):
    return sum(mask is not None for mask in pairs.masks.values())


def stripped(suffix):
    """An end of names, without the extension."""
    return re.sub(r'\.(bmp|gif|jfif|jpe?g|p[gnp]m|png|tiff?|webp)$', '', suffix.casefold())


def has_end(file, suffix):
    whole, name = PurePosixPath(file).name.casefold(), suffix.casefold()
    return whole.endswith(name) if stripped(suffix) != name else stem(file).endswith(name)


def joined(pictures, masks, marker, image_ends, rule, masks_folder=''):
    """Pairs for one rule: a mask has its image's name, and belongs to the image whose folders agree best."""
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
    namesakes = defaultdict(list)
    for file in images:
        namesakes[without_end(stem(file), image_ends)].append(file)
    found, doubtful, agreement = dict.fromkeys(images), {}, Agreement(masks_folder)
    for name, near in namesakes.items():
        # Of several masks that claim an image, the one that agrees best comes first, and keeps it.
        for mask, image in matched(near, by_name.get(name, []), agreement, doubtful):
            found[image] = found[image] or mask
    used = {mask for mask in found.values() if mask}
    return Pairs(found, sorted(chosen - used - doubtful.keys()), others, rule, doubtful)


def matched(images, masks, agreement, doubtful):
    """Masks and images of one name that belong together, the best first; reasons of others go into ``doubtful``.

    A mask is only of the image that its folders agree with best, whether or not that one has a better mask:
    ``masks/seq3/0.png`` is not of ``seq1/0.jpg`` because ``seq2/0.jpg`` has one.
    """
    claims = []
    for mask in masks:
        ranks = {image: agreement(image, mask) for image in images}
        best = max(ranks.values())
        near = [image for image in images if ranks[image] == best]
        # JPEGImages/a.jpg is an image, and SegmentationObject/a.png or depth/a.png is another map of it.
        near = [image for image in near if in_folder(image, IMAGE_FOLDER)] or near
        folders = {PurePosixPath(image).parent for image in near}
        differs = agreement.numbered(near[0], mask)
        if len(folders) > 1:
            doubtful[mask] = (f'may be the mask of any of {", ".join(near[:3])}{" …" if len(near) > 3 else ""}. Next: '
                              'put it into a folder that is named as that of its image')
        elif differs:
            doubtful[mask] = (f'would be the mask of {near[0]}, but {differs[1]} is not {differs[0]}. If it is: rename '
                              'the folder')
        else:       # of two images, a.jpg and a.png beside each other, the first has it
            claims.append((best, mask, near[0]))
    return [claim[1:] for claim in sorted(claims, key=lambda claim: claim[0], reverse=True)]


def is_other_kind(file, by_name, image_ends):
    """Whether a picture in a folder of masks is another mask of an image: no image is there."""
    return in_folder(file, MASK_FOLDER) and any(end and stem(file).endswith(end) for end in MASK_ENDS) and without_end(
        without_end(stem(file), MASK_ENDS), image_ends) in by_name


class Agreement:
    """How well the folders of an image and of a mask agree: more of one name, more of them from the root on, fewer
    others.

    Args:
        masks_folder (str): A folder that the user names as that of the masks, which need not agree with anything.
    """

    def __init__(self, masks_folder: str = '') -> None:
        self.masks_folder, self.known = masks_folder, {}

    def __call__(self, image: str, mask: str) -> tuple[int, int, int]:
        key = image.rpartition('/')[0], mask.rpartition('/')[0]
        if key not in self.known:       # a sequence has many images
            own, other = map(Counter, self.folders(image, mask))
            shared = (own & other).total()
            self.known[key] = shared, shared_folders(image, mask), 2 * shared - own.total() - other.total()
        return self.known[key]

    def folders(self, image, mask):
        own = [part.casefold() for part in PurePosixPath(image).parts[:-1]]
        mask = mask.removeprefix(f'{self.masks_folder}/') if self.masks_folder else mask
        return own, [part.casefold() for part in PurePosixPath(mask).parts[:-1]]

    def numbered(self, image: str, mask: str) -> tuple[str, str] | None:
        """Folders of the image and of the mask that differ in their numbers alone, as sequences do."""
        own, other = self.folders(image, mask)
        left, right = ([part for part in parts if part not in rest] for parts, rest in ((own, other), (other, own)))
        return next(((a, b) for a in left for b in right if are_numbered(a, b)), None)
