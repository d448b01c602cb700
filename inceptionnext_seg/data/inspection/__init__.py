"""A look at every image and mask of a data set: what is wrong, how often each class occurs, and pictures of it.

:mod:`.listing` says what there is in a folder, :mod:`.of_config` in the data sets of a config (which needs mmseg);
:mod:`.looking` decodes it in threads, :mod:`.page` shows it.
"""
from .listing import Item, Listing, list_folder
from .looking import Findings, inspect, summary
from .page import write_page

__all__ = ['Findings', 'Item', 'Listing', 'inspect', 'list_folder', 'summary', 'write_page']
