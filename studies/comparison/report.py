"""The report: its sections in order, its pictures, and the files that it is written to."""
from pathlib import Path

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import replacing, write_json, write_text

from .formats import html_page, markdown
from .pictures import classes_figure, curves_figure, has_colours, speed_figure
from .sections import (
    SHOWN_CLASSES,
    accuracy_section,
    class_rows,
    classes_section,
    images_section,
    overview_section,
    provenance_section,
    summary,
)
from .speed import benchmarks_section, speed_points, throughput_section


def report(content, stem, note=None, *, images=True):
    """Blocks of the report, and its pictures.

    Args:
        content (dict): From :func:`collect`.
        stem (str): What the pictures' names begin with.
        note (str | None): What a reader must know before the figures; by default that of ``content``.
        images (bool): Whether to show what rests on intervals over the images. Where these are not independent, False:
            then the first lines have the difference over seeds and no verdict, and classes are left out.

    Returns:
        tuple: list of (kind, content), and dict of PNG bytes by file name.
    """
    candidates = content['candidates']
    reference, *others = candidates
    few = has_colours(candidates)
    if not images:
        content = dict(content, paired=[])
    first = [*(summary(content, verdicts=images) if few else ()),
             *(overview_section(content) if 'complexity' in content or not few else ())]
    note = note or content.get('note')
    pictures, blocks = {}, [('title', content['title']), *([('text', note)] if note else ()), *first,
                            *accuracy_section(candidates), *(images_section(content) if images else ())]
    rows = class_rows(content) if few and images else []
    if rows:
        picture = f'{stem}_classes.png'
        pictures[picture] = classes_figure(
            [other['name'] for other in others], [row[:2] for row in rows[:2 * SHOWN_CLASSES]], reference['name'])
        blocks += classes_section(content, picture)
    blocks += [*throughput_section(candidates), *benchmarks_section(content['benchmarks'])]
    points, xlabel = speed_points(content)
    if points:
        picture = f'{stem}_speed.png'
        pictures[picture] = speed_figure(points, xlabel)
        blocks += [('heading', 'Speed and accuracy'), ('image', (picture, 'mIoU against images per second'))]
        blocks += [('text', 'Large points are means over the runs, small ones the runs.' if few else
                    'Points are means over the runs; the bars reach from the lowest to the highest run.')]
    curves = curves_figure(candidates) if few else None
    if curves:
        picture = f'{stem}_curves.png'
        pictures[picture] = curves
        blocks += [('heading', 'Training curves'), ('image', (picture, 'Training loss and validation mIoU')),
                   ('text', 'Mean over the runs; the band reaches from the lowest to the highest run.')]
    blocks += provenance_section(content)
    return blocks, pictures


def write_report(content, out, as_html=False):
    """Write the report, its pictures and its JSON, each whole or not at all.

    Args:
        out (Path): The Markdown file; the others lie beside it, with its stem. If there is a STEM.note.md, written by
            hand, its text stands first in the report, in place of the note of ``content``.
        as_html (bool): Also write one HTML file that holds everything.

    Returns:
        list[Path]: What was written.

    Raises:
        UserError: ``content`` is not whole.
    """
    out = Path(out)
    note = out.with_suffix('.note.md')
    try:
        blocks, pictures = report(content, out.stem, note.read_text().strip() if note.is_file() else None)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f'what the report {out} is made from is not whole: {error!r}. Next: make it from the runs with '
                        'tools/compare.py NAME=RUN NAME=RUN --out REPORT.md.') from error
    written = []
    for name, picture in pictures.items():
        written.append(out.with_name(name))
        with replacing(written[-1]) as temporary:
            temporary.write_bytes(picture)
    written.append(out.with_suffix('.json'))
    write_json(written[-1], content)
    if as_html:
        written.append(out.with_suffix('.html'))
        write_text(written[-1], html_page(blocks, pictures))
    written.append(out)
    write_text(out, markdown(blocks))
    return written
