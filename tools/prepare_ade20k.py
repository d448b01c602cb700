"""``inceptionnext-seg prepare-ade20k``, from a checkout."""
import sys

from inceptionnext_seg.cli.prepare_ade20k import main

if __name__ == '__main__':
    sys.exit(main())
