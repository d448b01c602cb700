"""What a reviewer asks of each result file: seeds, runs, exclusions, machine, load, commit, and what was decided after
seeing data."""
from fnmatch import fnmatch

from inceptionnext_seg.files import markdown_table

from ..operators.summary import Result as Operators
from ..own_last_weights import VARIANT as LAST_WEIGHTS
from ..speed.summary import Result as Speed
from .figures import machine_of

MISSING = 'not recorded'
# What no file records by itself, by pattern of its name. A result file may say it in its key
# `decided_after_seeing_data`.
DECIDED = {
    'speed.json': 'how many processes plain networks, other libraries and parts get: five or three were lowered to one '
                  'to three after the first process had shown how long each takes. Which layout is dropped and which '
                  'rounds are left out are rules of the code. That five processes decide a claim, not three, and that '
                  'no interval is narrower than the range of the processes. Inference was measured again, with faster '
                  'forms and candidates in turn, after its first results had shown how the speed of the machine drifts',
    'inference.json': 'it was measured again, in more processes, when torch had faster forms; what is compared is as '
                      'before',
    'camvid.json': 'no protocol was written before; that the norms differ was noticed after the runs',
    'camvid_own_25min.json': 'the schedule was chosen before, by three single runs of 1,187 iterations, of which no '
                             'file is kept, and their scores on the same validation images; seeds and length were '
                             'fixed before these ran. Which parts are left out was fixed after the runs of the '
                             'recipe, and a planned variant of an earlier decay was not run. Second seeds without '
                             'augmentation and of smaller crops were run after the first were seen',
    'camvid_own*.json': 'the schedule, by single runs on the same validation images',
    'generalization_mini.json': 'no protocol was written before',
    'operators.json': 'claims and limits: nothing. After a trial on a busy machine, which is not in the file, size 13 '
                      'was left out beyond the cache, and the second prediction takes the highest rate of n×n. After '
                      'the results: the number on n×n in training is no evidence for kernels tuned for squares, '
                      'a reversed one is called so, and no interval is narrower than the range of the processes',
    'ablations.json': 'length and seeds, from the pilot, by docs/studies/ablations.md; no run of the pilot is tested',
    'camvid_sequences.json': 'nothing: docs/studies/camvid_sequences.md was written before',
    'complexity.json': 'nothing: counts', 'replacement.json': 'nothing: counts',
    'gpu.json': 'which cells, by the time that there was; the CUDA graph of training was written after a profile had '
                'shown that the host is the slower; that ratios are to stock in its faster layout was decided after '
                'the figures were seen, and lowers them',
    'gpu_estimate.json': 'nothing was measured; the assumptions are in the file'}
# Of files whose figures no load changes.
EXACT = ('nothing: counts', 'nothing was measured')


def span(values):
    values = sorted(value for value in values if value is not None)
    if not values:
        return MISSING
    return f'{values[0]:g}' if values[0] == values[-1] else f'{values[0]:g}–{values[-1]:g}'


def joined(values):
    values = sorted({str(value) for value in values if value})
    return ', '.join(values) or MISSING


def seeds(runs):
    found = sorted({run['seed'] for run in runs if run.get('seed') is not None})
    return f'seeds {", ".join(map(str, found))}' if found else 'no seed'


def conditions(records):
    """Loads, threads and commits of what records them each."""
    return dict(load=[record.get('load_average') for record in records],
                threads=[record.get('threads') for record in records],
                commits=[record.get('commit') for record in records])


def own_recipe(content):
    """Whether a file is of studies.own_recipe, which records what it was made with run by run alone."""
    return {'minutes', 'threads', 'runs'} <= content.keys()


def excluded_cells(cells):
    failed = sum('error' in cell for cell in cells.values())
    return f'none; {failed} failed' if failed else 'none'


def details(content):
    """Of a result file: seeds or processes, runs, exclusions, loads, threads, commits."""
    e = content.get('environment') or {}
    load, commits = [e.get('load_average')], [e.get('commit'), content.get('commit')]
    if 'candidates' in content:
        runs = [run['metrics'] for candidate in content['candidates'] for run in candidate['runs']]
        return dict(repeats=seeds(runs), runs=len(runs), excluded='none',
                    **conditions([run['environment'] for run in runs]))
    if own_recipe(content):
        runs = content['runs']
        trained = [run for run in runs if run['variant'] != LAST_WEIGHTS]   # these are runs of the recipe once more
        return dict(repeats=seeds(runs), runs=len(trained), excluded='none',
                    **conditions([run['environment'] or {} for run in runs]))
    if 'records' in content and 'memory' in content:
        speed, records = Speed(content), content['records']
        processes = [len(found) for found in speed.seconds.values()]
        return dict(repeats=f'processes a candidate: {span(processes)}', runs=len(records),
                    excluded=f'{speed.excluded} of {speed.excluded + speed.rounds} rounds, by the rule',
                    load=[record['load_average'] for record in records],
                    threads=[speed.cells[record['cell']].threads for record in records],
                    commits=[run['commit'] for run in content['runs']])
    if 'groups' in content:     # studies.operators
        return dict(repeats=f'{len({group["process"] for group in content["groups"]})} processes',
                    runs=len(content['groups']), excluded='none',
                    load=[group.get('load_average') for group in content['groups']],
                    threads=[cell.threads for cell in Operators(content).cells.values()],
                    commits=[run['commit'] for run in content['runs']])
    if 'measurements' in content:
        found = content['measurements']
        return dict(repeats=f'{len({each["process"] for each in found})} processes', runs=len(found), excluded='none',
                    load=[load for each in found for load in each['load_average']],
                    threads=[content['setting']['threads']], commits=[each['commit'] for each in found])
    if 'protocol' in content or 'pilot' in content:     # studies.ablations, studies.camvid_sequences
        pilot, runs = content.get('pilot', []), content['runs']
        return dict(repeats=seeds(runs) + (f'; of the pilot {seeds(pilot)}' if pilot else ''),
                    runs=len(runs) + len(pilot),
                    excluded=f'none; {len(content["failed"])} failed' if content['failed'] else 'none',
                    **conditions([*pilot, *runs]))
    if 'conditions' in content:     # of make gpu
        cells = [cell for cell in content['cells'].values() if 'error' not in cell]
        return dict(repeats='a process a cell', runs=len(cells), excluded=excluded_cells(content['cells']), load=load,
                    threads=[e.get('threads')], commits=[*commits, *(cell['origin']['commit'] for cell in cells)])
    if 'cells' in content or ('runs' in content and 'accuracy' in content):
        runs = content.get('runs') or [run for cell in content['cells'].values() for run in cell.get('runs', ())]
        return dict(repeats='processes, a run each', runs=len(runs), excluded='none',
                    load=[run.get('load') for run in runs] or load, threads=[e.get('threads')], commits=commits)
    if isinstance(content.get('processes'), list):  # studies.window_speed
        processes = content['processes']
        return dict(repeats=f'{len(processes)} processes', runs=len(processes), excluded='none',
                    load=[process.get('load_average') for process in processes] or load,
                    threads=[content.get('threads') or e.get('threads')], commits=commits)
    if 'pieces' in content:
        pieces = content['pieces']
        return dict(repeats=f'seeds {", ".join(sorted({str(piece["seed"]) for piece in pieces}))}',
                    runs=sum(piece['cases'] for piece in pieces), excluded='none', load=load,
                    threads=[e.get('threads')], commits=commits)
    if 'kills' in content:
        return dict(repeats=f'{content["kills"]} kills, seed {content["seed"]}', runs=len(content['cases']),
                    excluded='none', load=load, threads=[e.get('threads')], commits=commits)
    rows = [row for key in ('rows', 'large') for row in content.get(key, ()) if 'commit' in row]    # of window_memory
    commits += [row['commit'] for row in rows]
    return dict(repeats='1', runs=content['cases'] if isinstance(content.get('cases'), int) else 1, excluded='none',
                load=load, threads=[e.get('threads')], commits=commits)


def row(path, content, results):
    name = path.relative_to(results.folder).as_posix()
    found = details(content)
    decided = next((text for pattern, text in DECIDED.items() if fnmatch(path.name, pattern)), MISSING)
    return [f'[{name}](results/{name})', machine_of(path, content, results.folder), found['repeats'], found['runs'],
            found['excluded'], 'counts' if decided.startswith(EXACT) else span(found['load']),
            joined(found['threads']), joined(found['commits']), content.get('decided_after_seeing_data') or decided]


def checklist(results):
    """Markdown table, a row a result file."""
    rows = [row(path, content, results) for path, content in results.files.items()
            if 'environment' in content or own_recipe(content)]
    return markdown_table(['result file', 'machine', 'repeats', 'runs', 'excluded', 'load average', 'threads', 'commit',
                           'decided after seeing data'], rows)
