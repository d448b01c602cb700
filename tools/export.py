"""``inceptionnext-seg export``, from a checkout."""
from inceptionnext_seg.cli.export import main

if __name__ == '__main__':
    main()
