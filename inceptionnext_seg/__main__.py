"""``python -m inceptionnext_seg COMMAND``: also what ``torchrun -m inceptionnext_seg train …`` starts."""
from .cli import main

if __name__ == '__main__':
    main()
