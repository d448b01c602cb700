"""Write docs/model_zoo.md, configs/metafile.yml and model-index.yml from the configs: python tools/model_zoo.py"""
import argparse
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import exit_on_user_error
from studies.model_zoo import write_catalogue


@exit_on_user_error
def main():
    argparse.ArgumentParser(description='Write the catalogue of the configs').parse_args()
    write_catalogue(Path(__file__).resolve().parents[1])


if __name__ == '__main__':
    main()
