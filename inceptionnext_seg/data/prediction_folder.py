"""The names of what ``inceptionnext-seg predict`` writes into a folder; see :mod:`..engine.prediction_files`."""
from pathlib import Path

CLASS_NUMBERS, OVERLAYS, ARRAYS = 'class_numbers', 'overlays', 'arrays'
CONFIDENCE, ENTROPY, COCO, LABELME = 'confidence', 'entropy', 'coco', 'labelme'
FOLDERS = (CLASS_NUMBERS, OVERLAYS, ARRAYS, CONFIDENCE, ENTROPY, COCO, LABELME)
RECORD, CLASSES_FILE, COCO_FILE = 'predict.json', 'classes.json', 'coco.json'
# In each file: the digest of the settings that it was made with, and in those that are corrected, of their own content.
MADE_WITH, DIGEST = 'made_with', 'digest'


def is_prediction_folder(folder: str | Path) -> bool:
    """Whether ``predict`` wrote into a folder: its settings and classes are there."""
    return all(Path(folder, name).is_file() for name in (RECORD, CLASSES_FILE))
