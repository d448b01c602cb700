"""``inceptionnext-seg import``, from a checkout."""
import sys

from inceptionnext_seg.cli.import_dataset import main

if __name__ == '__main__':
    sys.exit(main())
