"""``inceptionnext-seg test``, from a checkout."""
from inceptionnext_seg.cli.test import main

if __name__ == '__main__':
    main()
