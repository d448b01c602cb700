"""The command of a study that makes its result in one go and has no other options."""
import argparse
from pathlib import Path

from inceptionnext_seg.files import write_json, write_text


def run(description, out, make, report):
    """Parse ``--out``, write what ``make`` returns there and its report beside it, and print the report.

    Args:
        description (str): Of the command, for ``--help``.
        out (str): Where the result file is written without ``--out``.
        make (Callable): Returns the content of the result file.
        report (Callable): Markdown of this content.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default=out, metavar='FILE.json', help='result file (default: %(default)s)')
    path = Path(parser.parse_args().out)
    result = make()
    text = report(result)
    write_json(path, result)
    write_text(path.with_suffix('.md'), text)
    print(text)
