"""``inceptionnext-seg complexity``, from a checkout."""
from inceptionnext_seg.cli.complexity import main

if __name__ == '__main__':
    main()
