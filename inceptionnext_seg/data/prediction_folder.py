"""The names of what ``inceptionnext-seg predict`` writes into a folder; see :mod:`..engine.prediction_files`."""
import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import read_json

CLASS_NUMBERS, OVERLAYS, ARRAYS = 'class_numbers', 'overlays', 'arrays'
CONFIDENCE, ENTROPY, COCO, LABELME = 'confidence', 'entropy', 'coco', 'labelme'
FOLDERS = (CLASS_NUMBERS, OVERLAYS, ARRAYS, CONFIDENCE, ENTROPY, COCO, LABELME)
RECORD, CLASSES_FILE, COCO_FILE = 'predict.json', 'classes.json', 'coco.json'
# In each file: the digest of the settings that it was made with, and size and time of the image that it was made of; in
# those that are corrected, the digest of their own content.
MADE_WITH, MADE_OF, DIGEST = 'made_with', 'made_of', 'digest'


def is_prediction_folder(folder: str | Path) -> bool:
    """Whether ``predict`` wrote into a folder: its settings and classes are there."""
    return all(Path(folder, name).is_file() for name in (RECORD, CLASSES_FILE))


def digest_of(content: Any) -> str:
    """Of what a JSON file holds."""
    text = json.dumps(content, sort_keys=True)      # in ASCII
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def is_as_predicted(content: Any) -> bool:
    """Whether the content of a Labelme file is what ``predict`` wrote, which nobody has edited since."""
    return isinstance(content, dict) and DIGEST in content and content[DIGEST] == digest_of(
        {key: value for key, value in content.items() if key != DIGEST})


def is_corrected(path: Path) -> bool:
    """Whether a Labelme file is there and is not as it was written: edited, of another program, or not to be read."""
    try:
        return not is_as_predicted(read_json(path))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
