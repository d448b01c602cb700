"""``inceptionnext-seg active``, from a checkout."""
import sys

from inceptionnext_seg.cli.active import main

if __name__ == '__main__':
    sys.exit(main())
