"""Data as people have it, made into a folder that trains: masks of colours or indices, Labelme, COCO and CVAT files.

A file a format (:mod:`.mask_files`, :mod:`.labelme`, :mod:`.coco`, :mod:`.cvat`), named in :mod:`.formats`. Each makes
a :class:`.samples.Source` of a :class:`.tree.Tree`; :func:`import_dataset` reads all of it twice: once to see that it
can be read and what it holds (:mod:`.surveying`), once to write (:mod:`.writing`). Everything in a source is
untrusted: names are looked up among the files that are there, sizes are compared with the image's before anything of a
size is made.
"""
from .classes import Unconfirmed
from .driver import import_dataset
from .formats import FORMATS
from .options import Options
from .report import Report

__all__ = ['FORMATS', 'Options', 'Report', 'Unconfirmed', 'import_dataset']
