"""``inceptionnext-seg demo``, from a checkout."""
from inceptionnext_seg.cli.demo import main

if __name__ == '__main__':
    main()
