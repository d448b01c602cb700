"""``inceptionnext-seg predict``, from a checkout."""
import sys

from inceptionnext_seg.cli.predict import main

if __name__ == '__main__':
    sys.exit(main())
