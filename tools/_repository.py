"""Imported before ``studies``, which is not installed: puts the repository's root on Python's path."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
