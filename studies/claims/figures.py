"""Numbers with their intervals, from the result files of every machine."""
from pathlib import Path
from typing import NamedTuple

from ..comparison.differences import welch
from ..published.files import module, read, result_files
from ..published.machine import folder_name
from ..speed.summary import Result as Speed
from ..timing import ratio

POINT = 1.     # of mIoU: the smallest difference that matters


class Figure(NamedTuple):
    """One number that was measured or counted.

    Attributes:
        what (str): The condition that it is of.
        value, low, high (float | None): With its 95 % interval; None where a run failed, so that there is no number.
        repeats (int): Independent ones behind it.
        of (str): What these are: 'process', 'seed', 'sequence' of images, or 'count' for what is exact.
        where (str): Machine.
        signed (bool): A difference of accuracy, not a ratio: of mIoU in points, or of the cross-entropy in nats.
        lower_is_better (bool): The latter.
        bound (float | None): The difference, either way, that would not matter.
        equivalent (float | None): p, by the study that it is of, of the claim that the difference is within it.
        beside (str): What is shown with it and decides nothing.
        planned (int): Repeats that a protocol asks for, of which fewer are a look that it does not allow to decide.
    """
    what: str
    value: float | None
    low: float | None
    high: float | None
    repeats: int
    of: str
    where: str
    signed: bool = False
    lower_is_better: bool = False
    bound: float | None = None
    equivalent: float | None = None
    beside: str = ''
    planned: int = 0

    def __str__(self):
        if self.value is None:
            return f'{self.what}: a run failed'
        form = ('+' if self.signed else '') + ('.4f' if self.lower_is_better else '.2f')
        text = f'{self.what} {self.value:{form}}'
        if self.low is not None:
            text += f' ({self.low:{form}} to {self.high:{form}})'
        return text + ' nats' * self.lower_is_better + (f', {self.beside}' if self.beside else '')

    def turned(self, what):
        """The same difference the other way round."""
        low, high = (None, None) if self.low is None else (-self.high, -self.low)
        return self._replace(what=what, value=-self.value, low=low, high=high)


class Results:
    """Every result file below a folder, by name.

    Attributes:
        folder (Path): docs/results.
        files (dict[Path, dict]): Content by path.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.files = {path: read(path) for path in result_files(folder)}
        self.speed = [(path.parent.name, Speed(content)) for path, content in self.named('speed.json')]

    def named(self, name):
        return [(path, content) for path, content in self.files.items() if path.name == name]

    def get(self, name):
        """The content of docs/results/NAME; None where it is not there."""
        return self.files.get(self.folder / name)


def machine_of(path, content, folder):
    """The folder of a machine; of older files, which have none, their processor."""
    if path.parent != folder and path.parent.name not in ('reliability', 'reproduced'):
        return path.parent.name
    e = content['environment']
    return folder_name(e['cpu'], e.get('features', ()), e['cpu_cores'])


# Speed


MODES = dict(train='training', infer='inference')


def mixers(results, suite, mode, conditions=(('-plain', 'fp32'), ('-plain', 'bf16'), ('', 'fp32'), ('', 'bf16'))):
    """How many times as fast InceptionNeXt-T is as our ConvNeXt-T, both treated alike, on every machine."""
    found = []
    for where, speed in results.speed:
        for treatment, dtype in conditions:
            cell = next(cell.name for cell in speed.cells.values()
                        if (cell.suite, cell.mode, cell.dtype) == (suite, mode, dtype))
            name = f'{"plain" if treatment else "accelerated"} {dtype}'
            found += speed_figure(speed, where, name, cell, f'inceptionnext{treatment}', f'convnext{treatment}')
    return found


def not_mixers_alone(results):
    """What of the figures of training is acceleration's, on every machine where they were measured."""
    said = [(where, module('speed.report').mixers_words(speed)) for where, speed in results.speed]
    return ' '.join(f'{where}: {words}' for where, words in said if words)


def growing(results, mode='infer'):
    """The same of images larger than the 512×512 of the other figures, by their side: whole network, accelerated."""
    return [figure for where, speed in results.speed for cell in speed.cells.values()
            if (cell.suite, cell.mode) == ('growth', mode) and cell.size > 512
            for figure in speed_figure(speed, where, f'side {cell.size}', cell.name, 'inceptionnext', 'convnext')]


def one_thread(results, mode):
    """The same with one thread: whole network, accelerated, fp32."""
    return [figure for where, speed in results.speed for cell in speed.cells.values()
            if (cell.suite, cell.mode) == ('threads', mode)
            for figure in speed_figure(
                speed, where, f'accelerated {cell.dtype}, one thread{f", side {cell.size}" * (cell.size != 512)}',
                cell.name, 'inceptionnext', 'convnext')]


def speed_figure(speed, where, what, cell, candidate, baseline):
    if (found := speed.speedup(cell, candidate, baseline)) is None:
        return []
    return [Figure(what, found.value, found.low, found.high, found.processes, 'process', where)]


def on_gpus(results):
    """InceptionNeXt-T over ConvNeXt-T of the results of `make gpu`: backbones, plain, AMP or fp32."""
    found = []
    for path, content in results.named('gpu.json'):
        for name, cell in content['cells'].items():
            if cell['kind'] != 'speed' or 'error' in cell or 'backbone' not in name:
                continue
            seconds = {row['label']: row['seconds'] for row in cell['results']}
            for ours in seconds:
                theirs = ours.replace('inceptionnext', 'convnext')
                if theirs != ours and theirs in seconds and len(seconds[ours]) == len(seconds[theirs]):
                    between = ratio(seconds[theirs], seconds[ours])
                    found.append(Figure(f'{name}, {ours}', *between, 1, 'process', path.parent.name))
    return found


def whole_on_gpus(results, mode):
    """The same of whole networks, of one process each, which decides nothing."""
    found = []
    for path, content in results.named('gpu.json'):
        reporting = module('gpu.report')
        for name, cell in reporting.segmentors(content).items():
            if cell['setting']['mode'] == mode:
                setting = name.partition(', ')[2]
                found += [Figure(f'{how} {setting}', *between, 1, 'process', path.parent.name)
                          for how, between in reporting.families(cell).items() if between]
    return found


# Trained networks


def values(content, name, key='mIoU'):
    return next(([run['metrics'][key] for run in candidate['runs']] for candidate in content['candidates']
                 if candidate['name'] == name), [])


def miou_difference(results, file, name, reference, what):
    """mIoU of a candidate less that of another, in points, with Welch's interval over seeds."""
    content = results.get(file)
    if content is None or not (pair := [values(content, name), values(content, reference)])[0] or not pair[1]:
        return []
    found = welch(*pair)
    return [Figure(what, found.value, found.low, found.high, min(map(len, pair)), 'seed',
                   machine_of(results.folder / file, content, results.folder), signed=True, bound=POINT)]


def of_study(what, loss, miou, bound, repeats, of, where, planned=0):
    """A comparison of a study by a protocol: of the cross-entropy, which decides, with mIoU beside it."""
    return Figure(what, loss.difference, loss.low, loss.high, repeats, of, where, signed=True,
                  lower_is_better=True, bound=bound, equivalent=loss.equivalent, planned=planned,
                  beside=f'mIoU {miou.difference:+.2f} ({miou.low:+.2f} to {miou.high:+.2f})')


def ablated(results, family, *names):
    """Comparisons of a family of studies.ablations, simultaneous over all of it: of arms ('main', each less Inception)
    or contrasts ('pairs', 'factorial'). One that a failed run took away stands there without a number, so that a claim
    of several is not decided by the others alone."""
    path, content = results.folder / 'ablations.json', results.get('ablations.json')
    found = module('ablations.analysis').analyse(content).get(family) if content else None
    if not found:
        return []
    seeds, planned = len(found['seeds']), content['plan']['seeds']
    bound, where = content['plan']['bounds'].get('cross_entropy'), machine_of(path, content, results.folder)
    whole = {loss.name: (loss, miou) for loss, miou in zip(found['cross_entropy'][1], found['mIoU'][1], strict=True)}
    return [of_study(name.replace('_', ' '), *whole[name], bound, seeds, 'seed', where, planned) if name in whole else
            Figure(name.replace('_', ' '), None, None, None, 0, 'seed', where) for name in names]


def families(results):
    """InceptionNeXt-A less ConvNeXt-A over the sequences of CamVid that were left out, norms balanced."""
    path, content = results.folder / 'camvid_sequences.json', results.get('camvid_sequences.json')
    study = module('camvid_sequences') if content else None
    found = study.effects_of(content) if content else None
    if not found:
        return []
    # Sequences are what the interval is over; before all runs are there with the protocol's seeds, none decides.
    whole = content['seeds'] >= study.SEEDS and (
        len(content['runs']) >= len(study.ARMS) * len(content['images']) * content['seeds'])
    loss, miou = (found[name][study.FAMILY][0] for name in ('cross_entropy', 'mIoU'))
    return [of_study('InceptionNeXt-A less ConvNeXt-A, over sequences', loss, miou, None,
                     len(content['images']) if whole else 0, 'sequence', machine_of(path, content, results.folder))]


# Counts


def counted(what, value):
    return Figure(what, value, None, None, 1, 'count', 'counted')


def shares(results):
    """Shares of the channels that are convolved and that pass, of the first convolution that was replaced."""
    content = results.get('replacement.json')
    if content is None:
        return []
    first = content['models']['convnext_atto']['replaced'][0]
    channels = int(first['convolution'].split()[0])
    passing = int(first['branches'].split()[0])
    branch = int(first['branches'].split(',')[1].split()[0])
    return [counted('a branch, eighths', 8 * branch / channels),
            counted('convolved, eighths', 8 * 3 * branch / channels), counted('pass, eighths', 8 * passing / channels)]


def costs(results, family):
    """Parameters in M and MACs in G of UperNet-T at 512×2048."""
    content = results.get('complexity.json')
    if content is None:
        return []
    found = content['configs'][f'configs/upernet_{family.lower()}_t_ade20k.py']
    return [counted(f'{family} parameters, M', found['parameters'] / 1e6),
            counted(f'{family} MACs, G', found['macs'] / 1e9)]
