"""Sections on accuracy: summary, overview, over seeds, over images, by class; and where the runs come from.

A section is a generator of blocks (kind, content), which :mod:`.formats` writes as Markdown and HTML.
"""
import statistics

from .collecting import all_runs
from .differences import Difference, ran_together, welch
from .pictures import has_colours
from .reading import METRICS, differ_in_length
from .speed import throughput_of
from .words import (
    FEW_SEEDS,
    interval_text,
    listing,
    machine_text,
    mean_text,
    number,
    runs_text,
    signed,
    values_of,
    verdict,
    verdict_over_seeds,
    versions_text,
)

SHOWN_CLASSES = 10


def summary(content, verdicts=True):
    """The report's first lines: which is higher, or that it is not shown; without ``verdicts``, the difference."""
    reference, *others = content['candidates']
    for i, other in enumerate(others):
        names = (other['name'], reference['name'])
        seeds = welch(values_of(other, 'mIoU'), values_of(reference, 'mIoU'))
        text = (f'mIoU: {names[1]} {mean_text(values_of(reference, "mIoU"))}, {names[0]} '
                f'{mean_text(values_of(other, "mIoU"))} ({runs_text(len(reference["runs"]), len(other["runs"]))}). ')
        if seeds.low is None:
            text += '**Over seeds nothing is tested**: that needs two runs a side that differ.'
        elif not verdicts:
            text += (f'{names[0]} minus {names[1]} over seeds: {signed(seeds.value)} points '
                     f'(95 % interval {interval_text(seeds)}).')
        elif seeds.shown:
            higher, lower = names if seeds.value > 0 else names[::-1]
            text += f'**{higher} is higher than {lower}**: difference over seeds {signed(seeds.value)} points'
            text += f' (95 % interval {interval_text(seeds)}).'
        elif min(len(reference['runs']), len(other['runs'])) < FEW_SEEDS:
            text += (f'**Too few seeds to tell**: {names[0]} minus {names[1]} is {signed(seeds.value)} points'
                     f' (95 % interval {interval_text(seeds)}).')
        else:
            text += (f'**No difference shown over seeds**: {names[0]} minus {names[1]} is {signed(seeds.value)} points'
                     f' (95 % interval {interval_text(seeds)}).')
        if content['paired']:
            images = Difference(*content['paired'][i]['mIoU'])
            text += (f' Over the images, for these checkpoints: {signed(images.value)} points '
                     f'({interval_text(images)}), {verdict(images, *names)}.')
        yield 'text', text


def overview_section(content):
    """One row a candidate: what it costs, reaches and processes, and its differences to the first.

    Parameters and MACs are there where ``content`` has a ``complexity`` of each candidate, as a sweep counts them.
    """
    candidates, complexity = content['candidates'], content.get('complexity')
    reference, alone = candidates[0], not any(ran_together(all_runs(candidates)))
    rows = []
    for i, candidate in enumerate(candidates):
        miou, first = values_of(candidate, 'mIoU'), values_of(reference, 'mIoU')
        row = [candidate['name']]
        if complexity:
            cost = complexity[candidate['name']]
            row += [f'{cost["parameters"] / 1e6:.2f} M', f'{cost["macs"] / 1e9:.2f} G']
        row += [mean_text(miou), len(miou)]
        if i:
            seeds = welch(miou, first)
            images = Difference(*content['paired'][i - 1]['mIoU']) if content['paired'] else Difference(seeds.value)
            row += [signed(seeds.value), interval_text(seeds), interval_text(images),
                    verdict_over_seeds(seeds, len(miou), len(first), candidate['name'], reference['name'])]
        else:
            row += ['–'] * 4
        if alone:
            speeds = [t['images_per_s'] for run in candidate['runs'] if (t := throughput_of(run, 'train'))]
            row.append(number(statistics.median(speeds) if speeds else None))
        rows.append(row)
    costs = ['parameters', 'MACs'] if complexity else []
    yield 'heading', 'Overview'
    yield 'table', (['candidate', *costs, 'mIoU (%)', 'n', f'minus {reference["name"]}', '95 % over seeds',
                     '95 % over images', 'result over seeds', *(['training images/s'] if alone else [])], rows)
    text = ('mIoU is mean ± standard deviation over n runs, each with another seed. Differences have two intervals: '
            'over seeds (Welch) for what other seeds would do, and over images (paired bootstrap) for what other '
            'images would do to these very checkpoints. Each interval is for itself: of twenty candidates without any '
            'difference about one would seem to have one.')
    if min(len(candidate['runs']) for candidate in candidates) < FEW_SEEDS:
        text += (' With two runs a side the interval over seeds has at most two degrees of freedom and covers almost '
                 'anything: "too few seeds to tell" is no evidence of equality.')
    if alone:
        text += ' Images/s are medians of the runs themselves, and only indicative.'
    if complexity:
        sizes = dict.fromkeys('×'.join(map(str, cost['shape'])) for cost in complexity.values())
        text += f' Parameters include the auxiliary head, MACs do not; MACs of one image of {listing(sizes)} pixels.'
    yield 'text', text


def accuracy_section(candidates):
    """Over seeds: means, standard deviations, each run, and Welch's intervals of the differences to the first."""
    reference, *others = candidates
    yield 'heading', 'Accuracy over seeds'
    yield 'table', (
        ['candidate', 'n', *(f'{metric} (%)' for metric in METRICS)],
        [[c['name'], len(c['runs']), *(mean_text(values_of(c, metric)) for metric in METRICS)] for c in candidates])
    if any(len(candidate['runs']) > 1 for candidate in candidates):
        yield 'text', 'Mean ± standard deviation over the n runs, which differ in their seed.'
    yield 'table', (
        ['run of', 'seed', 'iteration', *(f'{metric} (%)' for metric in METRICS)],
        [[c['name'], number(run['metrics'].get('seed'), 0), number(run['metrics'].get('iteration'), 0),
          *(number(run['metrics'][metric]) for metric in METRICS)] for c in candidates for run in c['runs']])
    if differ_in_length(run['metrics'] for run in all_runs(candidates)):
        yield 'text', ('**The runs were not evaluated at the same iteration**, so the differences below are also '
                       'differences in training length.')
    if not others:
        return
    yield 'table', (
        [f'minus {reference["name"]}', 'metric', 'difference', '95 % interval', 'result'],
        [[c['name'], metric, signed(d.value), interval_text(d),
          verdict_over_seeds(d, len(c['runs']), len(reference['runs']), c['name'], reference['name'])]
         for c in others for metric in METRICS for d in [welch(values_of(c, metric), values_of(reference, metric))]])
    yield 'text', ("Difference of the means in percentage points, with Welch's interval (`scipy.stats.ttest_ind`, "
                   'variances not assumed equal). It covers what the choice of the seed does, not that of the images.')
    for other in others if has_colours(candidates) else ():
        yield 'text', seeds_limit(other, reference)


def seeds_limit(other, reference):
    """In words, what so many runs can show."""
    n, m = len(other['runs']), len(reference['runs'])
    names = f'{other["name"]} and {reference["name"]}'
    difference = welch(values_of(other, 'mIoU'), values_of(reference, 'mIoU'))
    if min(n, m) < 2:
        return (f'{names}: {runs_text(n, m)}. One run says nothing about the spread over seeds, so no interval can be '
                'given, and the difference may be chance.')
    if difference.low is None:
        return f'{names}: all runs of a side gave the same mIoU, so no interval can be given. Were the seeds different?'
    half = (difference.high - difference.low) / 2
    return (f'{names}: with {runs_text(n, m)} the interval of mIoU reaches {number(half)} points to either side. '
            + ('The difference is larger than that.' if difference.shown else
               'A smaller true difference cannot be told from none with so few runs, so this is no proof of equality.'))


def images_section(content):
    """Over images: the paired bootstrap of mIoU and of the classes that differ most."""
    reference, *others = content['candidates']
    if not others:
        return
    yield 'heading', 'The same images, paired'
    if not content['paired']:
        missing = [run['path'] for run in all_runs(content['candidates']) if not run['counts']]
        yield 'text', (f'Not done: no `per_image.npz` beside the metrics of {listing(missing)}. '
                       'Evaluating with tools/test.py writes it.')
        return
    first = content['paired'][0]
    text = (
        'A paired bootstrap over the validation images (`scipy.stats.bootstrap`, '
        f'{first["resamples"]} resamples, percentile interval, generator seed {first["seed"]}): images are drawn with '
        'replacement, the same ones for both sides, and mIoU is computed anew from their pixel counts. It covers what '
        'the choice of the images does, for these very checkpoints, not what another seed would do.')
    if len(all_runs(content['candidates'])) > len(content['candidates']):
        text += (' The first row of a candidate compares the mean mIoU of all its runs with that of all runs of '
                 f'{reference["name"]}, on the same drawn images; the rows below it take the runs two by two.')
    yield 'text', text
    rows = []
    for other, paired in zip(others, content['paired'], strict=True):
        single = len(other['runs']) == len(reference['runs']) == 1
        entries = [('the run' if single else 'mean of all runs', paired['mIoU'])]
        if not single:
            entries += [
                (f'seed {a["metrics"].get("seed")} and seed {b["metrics"].get("seed")}', entry)
                for a, b, entry in zip(other['runs'], reference['runs'], paired['pairs'], strict=False)]
        for what, entry in entries:
            d = Difference(*entry)
            rows.append([other['name'], what, signed(d.value), interval_text(d),
                         verdict(d, other['name'], reference['name'])])
    yield 'table', ([f'minus {reference["name"]}', 'runs', 'mIoU difference', '95 % interval', 'result'], rows)


def class_rows(content):
    """(class, [Difference | None of each other candidate], [mean IoU of each candidate]), largest difference first."""
    reference, rows = content['candidates'][0], []
    for i, title in enumerate(reference['runs'][0]['metrics']['per_class']):
        means = []
        for candidate in content['candidates']:
            iou = [run['metrics']['per_class'][title]['IoU'] for run in candidate['runs']]
            means.append(None if None in iou else statistics.fmean(iou))
        if content['paired']:
            entries = [paired['classes'][i] for paired in content['paired']]
            differences = [entry and Difference(*entry) for entry in entries]
        else:
            differences = [None if None in (mean, means[0]) else Difference(mean - means[0]) for mean in means[1:]]
        if any(differences):
            rows.append((title, differences, means))
    return sorted(rows, key=lambda row: -max(abs(d.value) for d in row[1] if d))


def classes_section(content, picture):
    reference, *others = content['candidates']
    rows = class_rows(content)
    yield 'heading', 'Classes that differ most'
    yield 'image', (picture, f'IoU of each class minus that of {reference["name"]}')
    header = ['class', f'{reference["name"]} IoU (%)']
    for other in others:
        header += [f'{other["name"]} IoU (%)', 'difference', '95 % interval', 'result']
    table = []
    for title, differences, means in rows[:SHOWN_CLASSES]:
        row = [title, number(means[0])]
        for other, d, mean in zip(others, differences, means[1:], strict=True):
            row += [number(mean)] + (['–'] * 3 if d is None else [
                signed(d.value), interval_text(d), verdict(d, other['name'], reference['name'])])
        table.append(row)
    yield 'table', (header, table)
    text = f'{len(table)} of {len(rows)} classes; IoU is the mean over the runs.'
    if content['paired']:
        text += (' The intervals are those of the paired bootstrap, each for itself: of twenty classes without any '
                 'difference about one would seem to have one. In the picture, pale bars have intervals that cover 0. '
                 'A class without an interval occurs in too few images.')
    yield 'text', text


def provenance_section(content):
    candidates, runs = content['candidates'], all_runs(content['candidates'])
    yield 'heading', 'Where this comes from'
    yield 'text', 'This report:'
    yield 'code', [content['environment']['command']]
    yield 'text', 'Its runs:'
    yield 'code', list(dict.fromkeys(run['metrics']['environment']['command'] for run in runs))
    rows = []
    for candidate in candidates:
        for run in candidate['runs']:
            metrics, origin = run['metrics'], run['metrics']['environment']
            rows.append([
                candidate['name'], number(metrics.get('seed'), 0), f'`{run["path"]}`', f'`{metrics["config"] or "–"}`',
                str(origin.get('date', '–'))[:10], number(metrics.get('seconds'), 0), metrics.get('processes', '–')])
    yield 'table', (['run of', 'seed', 'run', 'config', 'date', 'seconds', 'processes'], rows)
    for title, entries in (('Machine', [machine_text(run['metrics']['environment']) for run in runs]),
                           ('Versions', [versions_text(run['metrics']['environment']) for run in runs])):
        for text in dict.fromkeys(entries):
            who = '' if len(set(entries)) == 1 else f' ({entries.count(text)} of the {len(runs)} runs)'
            yield 'text', f'{title}{who}: {text}.'
