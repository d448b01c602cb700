"""The report beside each result file, and its pictures."""
import importlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object, replacing, write_text

from .stamps import digest, stamp, stamp_of

WHAT = 'a result file'


class Report(NamedTuple):
    """What is written from a result file.

    Attributes:
        text (Callable | None): Of its content and path, the Markdown beside it; None where it has no file of its own.
        pictures (Callable): Of its content and path, by path of each PNG a function that writes it there.
        drawn_by (tuple[str]): The modules that draw, and that make the figures drawn.
    """
    text: Callable | None
    pictures: Callable = lambda content, path: {}
    drawn_by: tuple = ()


def module(name):
    """A module of the studies, imported when one of its files is there: some take seconds."""
    return importlib.import_module(f'studies.{name}')


def by(name):
    """The Markdown of ``studies.NAME.report(content)``."""
    return Report(lambda content, path: module(name).report(content))


def study(name, *figures):
    """A package of ``report``, ``pictures`` and ``summary``, such as studies.speed; ``figures`` are further modules."""
    def pictures(content, path):
        drawing, result = module(f'{name}.pictures'), module(f'{name}.summary').Result(content)
        return {picture: lambda out, kind=kind: drawing.PICTURES[kind][1](result, out)
                for kind, picture in drawing.picture_paths(result, path).items()}

    return Report(lambda content, path: module(f'{name}.report').report(content, path), pictures,
                  (f'{name}.pictures', f'{name}.summary', 'speed.statistics', *figures))


def comparison(*, images=True):
    """What tools/compare.py and tools/sweep.py write.

    Args:
        images (bool): Whether with what rests on intervals over the images. Without it there is no verdict either.
    """
    def blocks(content, path):
        note = path.with_suffix('.note.md')
        return module('comparison.report').report(
            content, path.stem, note.read_text().strip() if note.is_file() else None, images=images)

    def pictures(content, path):
        return {path.with_name(name): lambda out, drawn=drawn: out.write_bytes(drawn)
                for name, drawn in blocks(content, path)[1].items()}

    return Report(lambda content, path: module('comparison.formats').markdown(blocks(content, path)[0]), pictures,
                  ('comparison.pictures', ))


def effects(path):
    return path.with_name(f'{path.stem}_effects.png')


def ablation_pictures(content, path):
    drawn = module('ablations.report').drawn(content)
    return {path.with_name(f'{path.stem}_{name}.png'): lambda out, data=data: out.write_bytes(data)
            for name, data in drawn.items()}


def ablations_text(content, path):
    study, speed = module('ablations.report'), module('ablations.speed')
    names = {picture.stem.rpartition('_')[2]: picture.name for picture in ablation_pictures(content, path)}
    return study.report(content, speed.throughput(speed.speed_file(path)), names)


def sequence_pictures(content, path):
    data = module('camvid_sequences').draw(content)
    return {effects(path): lambda out: out.write_bytes(data)} if data else {}


def curves(path):
    return path.with_name(f'{path.stem}_curves.png')


COMPARISON = comparison()       # under any name, but for those of REPORTS
# By name below docs/results.
REPORTS = {
    '*/speed.json': study('speed', 'speed.cells'),
    '*/operators.json': study('operators', 'operators.roofline'),
    '*/inference.json': by('inference.report'),
    '*/operator_choices.json': by('operator_choices'),
    '*/gpu.json': by('gpu.report'),
    '*/camvid_own*.json': Report(
        lambda content, path: module('own_recipe').report(content, curves(path).name),
        lambda content, path: {curves(path): lambda out: module('own_recipe').draw(content, out)},
        ('comparison.pictures', )),
    'ablations.json': Report(ablations_text, ablation_pictures, ('ablations.pictures', )),
    'ablations_speed.json': Report(lambda content, path: module('throughput.report').report(content)),
    'camvid_sequences.json': Report(
        lambda content, path: module('camvid_sequences').report(content, effects(path).name),
        sequence_pictures, ('camvid_sequences', )),
    # Its validation images are frames of one sequence, and its candidates differ in their norm: see its note.
    'camvid.json': comparison(images=False),
    'accelerate_others.json': by('other_segmentors'),
    'complexity.json': Report(
        lambda content, path: importlib.import_module('inceptionnext_seg.cli.complexity').report(content)),
    'replacement.json': by('replacement_report'),
    'gpu_estimate.json': by('gpu.estimate'),
    'gpu_stream.json': by('gpu.stream'),
    '*/window_memory.json': by('window_memory'),
    '*/window_speed.json': by('window_speed'),
    '*/backbone_limit.json': by('backbone_limit'),
    'reliability/kills.json': by('reliability.cases'),
    # Shown in docs/reliability.md alone; scores of trained models, in docs/model_zoo.md.
    **dict.fromkeys(('reliability/fuzz.json', 'reliability/sanitize.json', 'reliability/long_run.json',
                     'reproduced/*.json'), Report(None))}


def result_files(results):
    """Paths of the result files in docs/results."""
    return sorted(Path(results).rglob('*.json'))


def read(path):
    return read_object(path, WHAT, 'take it out of docs/results, or measure it again')


def report_of(content, path, results):
    """The :class:`Report` of a result file.

    Raises:
        UserError: No study is known to write such a file.
    """
    name = Path(path).relative_to(results).as_posix()
    for pattern, report in REPORTS.items():
        if fnmatch(name, pattern):
            return report
    if 'candidates' in content:
        return COMPARISON
    raise UserError(f'{path}: no report is known for this file. Expected: one of {", ".join(REPORTS)}, or a result of '
                    'tools/compare.py. Next: name its report in studies/published/files.py.')


def stale_pictures(content, path, report):
    """The pictures that are missing, or were drawn from other data or by other code.

    Returns:
        tuple[dict, str]: By path a function that draws; and what they are to be stamped with.
    """
    if not report.drawn_by:
        return {}, None
    expected = digest(content, *(module(name).__file__ for name in report.drawn_by))
    return {picture: draw for picture, draw in report.pictures(content, Path(path)).items()
            if stamp_of(picture) != expected}, expected


def write_report(content, path, report):
    """Write the :class:`Report` of a result file beside it, and of its pictures those that are stale.

    Returns:
        list[Path]: The pictures that were drawn.
    """
    path = Path(path)
    if report.text is not None:
        write_text(path.with_suffix('.md'), report.text(content, path))
    stale, expected = stale_pictures(content, path, report)
    for picture, draw in stale.items():
        with replacing(picture) as temporary:
            draw(temporary)
            stamp(temporary, expected)
    return list(stale)


def write_reports(results):
    """Write every report in ``results`` anew, and the pictures that are stale; returns the pictures that were drawn."""
    drawn = []
    for path in result_files(results):
        content = read(path)
        drawn += write_report(content, path, report_of(content, path, results))
    return drawn
