"""Figures of factorized convolutions: of docs/results/MACHINE/operators.json."""
from ..published.files import module
from .figures import Figure
from .rules import FAILS, HOLDS, LEAST, OPEN

REVERSED = f'{FAILS}: the reverse does'     # as studies.operators says it

# By key: what is claimed to take twice the time of n×n.
FACTORIZED = {
    'inference': 'depthwise n×1 → 1×n takes twice as long as n×n, inference',
    'training': 'the same, training',
    'dense': 'the same, dense convolutions',
    'relu': 'with a non-linearity between it is the same',
    '6x7': '6×1 → 1×7 for 6×7 is the same'}
# By key, which is also what studies.operators calls it: what is claimed.
REASONS = {
    'sequential passes': 'it is slower because its two passes run one after the other',
    'memory traffic': 'it is slower because of memory traffic',
    'operation count': 'the operation count decides how long it takes',
    'cache': 'it is slower because of the cache',
    'kernel tuning': 'it is slower because kernels are tuned for squares',
    'launch': 'it is slower because of the launch of a second operator',
    'synchronization': 'it is slower because of the synchronization of threads'}
# By the same key, what the numbers alone do not say.
REMARKS = {
    'sequential passes': 'The second number is of twice the bytes as well, and cannot tell passes in sequence from '
                         'memory traffic: it is shown, and the first decides.',
    'kernel tuning': 'Where the reverse holds, kernels of the same work differ, though not as it was written down.'}


# Of studies.operators: experiments that say the same of two reasons, and so decide neither.
UNTELLING = ('second-pass', )


def times(side):
    return side.replace('x', '×')


# Of studies.operators: subject, side, mode and place of each figure of a claim, and how it is called.
SHOWN = {
    'inference': [(f'depthwise-{side}-infer-{place}', f'{times(side)}, {where}') for side in ('3x3', '7x7')
                  for place, where in (('inside', 'in the cache'), ('beyond', 'beyond the cache'))],
    'training': [(f'depthwise-{side}-train-inside', times(side)) for side in ('3x3', '7x7')],
    'dense': [(f'dense-{side}-{mode}-inside', f'{times(side)}, {word}') for side in ('3x3', '7x7')
              for mode, word in (('infer', 'inference'), ('train', 'training'))],
    'relu': [(f'relu-depthwise-{side}-infer-{place}', f'{times(side)}, {where}') for side in ('3x3', '7x7')
             for place, where in (('inside', 'in the cache'), ('beyond', 'beyond the cache'))],
    '6x7': [(f'depthwise-6x7-{mode}-inside', word) for mode, word in (('infer', 'inference'), ('train', 'training'))]}


def studied(results):
    """(machine, a result of studies.operators) of each machine that has one."""
    return [(path.parent.name, module('operators.summary').Result(content))
            for path, content in results.named('operators.json')]


def figure(what, found, where):
    return Figure(what, found.value, found.low, found.high, found.processes, 'process', where)


def factorized_figures(results, key):
    """Time over that of n×n."""
    measured = [(where, module('operators.reasons').claims(result)) for where, result in studied(results)]
    return [figure(what, ratios[name], where) for where, ratios in measured for name, what in SHOWN[key]
            if ratios.get(name) is not None]


def experiments(results, key):
    """(figure, whether the experiment bears the reason out) of each that was measured; None for one that cannot tell
    it from another reason."""
    found = []
    for where, result in studied(results):
        for name, finding in module('operators.reasons').findings(result).items():
            if finding.experiment.reason == key and finding.found is not None:
                shown = figure(finding.experiment.claim, finding.found, where)
                decided = finding.verdict in (HOLDS, FAILS, REVERSED) and shown.repeats >= LEAST['process']
                found.append((shown, None if name in UNTELLING else finding.verdict if decided else OPEN))
    return found


def reason_figures(results, key):
    return [shown for shown, _ in experiments(results, key)]


def reason_verdict(results, key):
    """From the experiments, whose limits studies.operators fixed before it measured."""
    found = [(shown, kind) for shown, kind in experiments(results, key) if kind]
    if not found:
        return 'not measured yet', 'the study has experiments that can refute it'
    by = {HOLDS: [], FAILS: [], OPEN: []}
    for shown, kind in found:
        reverse = kind == REVERSED
        by[FAILS if reverse else kind].append(shown.what + ' (the reverse holds)' * reverse)
    if by[HOLDS] and by[FAILS]:
        rest = f'. Open: {"; ".join(by[OPEN])}' if by[OPEN] else ''
        return 'holds only if', f'it means: {"; ".join(by[HOLDS])}. Refuted by: {"; ".join(by[FAILS])}{rest}'
    if not by[OPEN]:
        return (HOLDS if by[HOLDS] else FAILS), ''
    few = any(shown.repeats < LEAST['process'] for shown, _ in found)
    why = f'{LEAST["process"]} processes decide' if few else 'the interval covers the limit'
    said = [f'{word}: {"; ".join(by[kind])}. ' for kind, word in ((HOLDS, 'borne out by'), (FAILS, 'refuted by'))
            if by[kind]]
    return OPEN, f'{"".join(said)}{"Open: " if said else ""}{"; ".join(by[OPEN])} ({why})'
