"""The data set on disk: drawn, written whole or not at all, and checked."""
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ...errors import UserError
from ...files import read_json
from .classes import CLASSES_USED
from .scenes import DEFAULT_SIZE, draw_scene

# Raise it with every change that alters a pixel or the layout: a data set on disk is of one version.
FORMAT_VERSION = 1

# Scene i of a split has the seed `seed * 2**20 + first + i`: no scene is in both splits, or in sets of two seeds.
SPLITS = {'training': ('ADE_train', 0), 'validation': ('ADE_val', 2**19)}

README = """Mini-ADE20K: synthetic scenes in ADE20K's layout, drawn by inceptionnext_seg.data.mini.

images/{training,validation}/*.png       RGB
annotations/{training,validation}/*.png  8 bit: 1 to 150 as in ADE20K's objectInfo150.csv, 0 is unlabelled
mini.json                                format version, parameters, classes and the SHA-256 of all decoded pixels
                                         (per split, in the order of the file names: image, annotation)

The pictures hold no photograph and may be used like the code that drew them.
"""


def make_mini_ade20k(root, num_train=320, num_val=64, size=DEFAULT_SIZE, seed=0):
    """Draw the mini-ADE20K data set into ``root``, unless it is there already.

    The set is drawn into a hidden folder beside ``root`` and renamed when it is complete, so that ``root`` never holds
    a part of it. Of two processes that draw it at once, the one that finishes last discards its copy.

    Args:
        root (str | Path): The folder to make; its parents are made too.
        num_train (int): Scenes in ``training``.
        num_val (int): Scenes in ``validation``; scene i is the same whatever ``num_train``.
        size (int | tuple[int, int]): As in :func:`draw_scene`.
        seed (int): Sets of different seeds have no scene in common.

    Returns:
        Path: ``root``, with ``images/``, ``annotations/``, ``README.txt`` and ``mini.json`` (:func:`read_manifest`).

    Raises:
        UserError: ``root`` holds something else (it is never deleted or overwritten), it cannot be written, or a
            parameter is out of range.
    """
    for name, value, lowest in (('num_train', num_train, 1), ('num_val', num_val, 1), ('seed', seed, 0)):
        if not lowest <= value < 2**19:
            raise UserError(f'{name} is {value}: give {lowest} to {2**19 - 1}')
    root = Path(root)
    size = [size, size] if isinstance(size, int) else list(size)
    parameters = {
        'format_version': FORMAT_VERSION, 'num_train': num_train, 'num_val': num_val, 'size': size, 'seed': seed}
    draft = None
    try:
        if root.exists():
            return check_mini_ade20k(root, parameters)
        root.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f'.{root.name}.part-', dir=root.parent))
        # A folder inside the private temporary one, so that the data set gets the permissions of any new folder.
        write_mini_ade20k(draft / root.name, parameters)
        try:
            (draft / root.name).rename(root)
        except OSError:
            if not root.exists():
                raise
            check_mini_ade20k(root, parameters)  # another process was faster
    except OSError as error:
        raise UserError(f'cannot write the data set to {root} ({error}): '
                        'give a folder that you may write, on a disk with room for it') from error
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    return root


def scene_paths(parameters):
    """(seed, image path, annotation path) of each scene; paths are relative to the root of the data set."""
    counts = parameters['num_train'], parameters['num_val']
    for (split, (prefix, first)), count in zip(SPLITS.items(), counts, strict=True):
        for index in range(count):
            seed, name = parameters['seed'] * 2**20 + first + index, f'{prefix}_{index + 1:08d}.png'
            yield seed, Path('images', split, name), Path('annotations', split, name)


def write_mini_ade20k(root, parameters):
    for folder in ('images', 'annotations'):
        for split in SPLITS:
            (root / folder / split).mkdir(parents=True)
    digest = hashlib.sha256()
    scenes = list(scene_paths(parameters))
    for seed, image_path, annotation_path in tqdm(scenes, desc='Drawing mini-ADE20K', unit='scene'):
        image, annotation = draw_scene(seed, tuple(parameters['size']))
        for pixels, path in ((image, image_path), (annotation, annotation_path)):
            digest.update(pixels.tobytes())
            Image.fromarray(pixels).save(root / path, compress_level=1)
    (root / 'README.txt').write_text(README, encoding='utf-8')
    manifest = {'name': 'mini-ade20k', **parameters, 'classes': CLASSES_USED, 'sha256': digest.hexdigest()}
    (root / 'mini.json').write_text(json.dumps(manifest, indent=2) + '\n', encoding='utf-8')


def read_manifest(root):
    """The manifest of the mini-ADE20K data set in ``root``, or None where there is none that can be read."""
    try:
        manifest = read_json(Path(root) / 'mini.json')
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get('name') == 'mini-ade20k' else None


def check_mini_ade20k(root, parameters):
    """Return ``root`` if it holds all files of the expected data set; else a UserError says what it holds."""
    advice = 'give another folder, or remove this one to have the data set drawn again'
    manifest = read_manifest(root)
    if manifest is None:
        raise UserError(f'{root} exists and is no mini-ADE20K data set (no valid mini.json in it): {advice}')
    for name, value in parameters.items():
        if manifest.get(name) != value:
            raise UserError(f'{root} holds a mini-ADE20K data set with {name} {manifest.get(name)}, '
                            f'expected {value}: {advice}')
    files = [path for _, *pair in scene_paths(parameters) for path in pair]
    missing = [path for path in files if not (root / path).is_file()]
    if missing:
        raise UserError(f'{root} lacks {len(missing)} of the {len(files)} files of its mini-ADE20K data set, '
                        f'the first is {missing[0]}: {advice}')
    return root
