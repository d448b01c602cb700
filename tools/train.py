"""``inceptionnext-seg train``, from a checkout."""
from inceptionnext_seg.cli.train import main

if __name__ == '__main__':
    main()
