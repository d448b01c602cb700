"""``inceptionnext-seg check``, from a checkout."""
import sys

from inceptionnext_seg.cli.check_dataset import main

if __name__ == '__main__':
    sys.exit(main())
