"""Imported before ``studies``, which is not installed: puts the repository's root on Python's path."""
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    importlib.import_module('studies')
except ImportError as error:    # the extra `studies` is not installed: one message, as for any error of the user's
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
