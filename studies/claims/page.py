"""docs/claims.md."""
from inceptionnext_seg.files import markdown_table

from ..speed.statistics import coverage
from .checklist import checklist
from .figures import Results
from .rules import LEAST, NEAR, PLURAL
from .table import CLAIMS, GROUPS

FORUM = 'https://discuss.pytorch.org/t'


def figures_text(claim, results):
    """Figures by machine; a dash without any."""
    by = {}
    for figure in claim.figures(results):
        by.setdefault(figure.where, []).append(figure)
    texts = []
    for where, figures in by.items():
        said = '; '.join(map(str, figures))
        counted = figures[0].of == 'count'
        repeats = sorted({figure.repeats for figure in figures})
        name = figures[0].of if repeats == [1] else PLURAL.get(figures[0].of)
        texts.append(said if counted else f'{where}, {"–".join(map(str, repeats[::max(len(repeats) - 1, 1)]))} {name}: '
                     f'{said}')
    return '. '.join(texts) or '–'


def verdict_text(claim, results):
    word, detail = claim.verdict(results)
    separator = ' ' if word == 'holds only if' else ': '
    return word + (f'{separator}{detail}' if detail else '')


def group_table(claims, results):
    limits = any(claim.rule is not None for claim in claims)
    rows = [[claim.claim, claim.source, *(['–' if claim.rule is None else str(claim.rule)] if limits else []),
             figures_text(claim, results), verdict_text(claim, results), f'`{claim.command}`'] for claim in claims]
    return markdown_table(['claim', 'from', *(['holds if'] if limits else []), 'measured', 'verdict', 'again'], rows)


def remarks(claims, results):
    """Remarks of a group, each once."""
    found = {}
    for claim in claims:
        if remark := claim.remark(results) if callable(claim.remark) else claim.remark:
            found.setdefault(remark, []).append(claim.claim.removeprefix('first experiments: ').split(':')[0])
    return found


def page(results):
    """The whole document.

    Args:
        results (Path): docs/results.
    """
    results = Results(results)
    verdicts = [claim.verdict(results)[0] for claim in CLAIMS.values()]
    tally = ', '.join(f'{word} {verdicts.count(word)}' for word in dict.fromkeys(verdicts))
    machines = sorted({where for where, _ in results.speed} | {path.parent.name for path, _ in results.named(
        'gpu.json')})
    parts = [
        '# Claims, and what was measured',
        'Written by `python tools/readme.py` from the files in docs/results: every figure, and every verdict that a '
        f'figure decides. {len(CLAIMS)} claims: {tally}. Speed was measured on {", ".join(machines) or "no machine"}; '
        'a file that lies in no folder of a machine is named by its processor and cores.',
        '## How a verdict is made',
        f'A figure decides only with at least {LEAST["process"]} processes, {LEAST["seed"]} seeds a side, or '
        f'{LEAST["sequence"]} sequences. Its 95 % interval must lie on one side of the limit as a whole: of a claimed '
        f'ratio nine tenths ({NEAR:g}) of it, of a difference 0, of a count the count; of a proposed reason, the '
        'limits of [its experiments](factorized_convolutions.md#why), which were written down before. That accuracy '
        'does not fall, or does not rise, holds where a change that way is shown to be less than a point of mIoU. '
        'Where a protocol lets the cross-entropy decide, figure and limit are in nats, a point is what the pilot '
        'says that it is worth, intervals and equivalence are those of the protocol, and mIoU stands beside them. '
        '"Holds only if" lists the conditions in which it holds where it fails in others. An interval covers the '
        'limit, or there are too few repeats: "not decided". Intervals of two seeds, or over the rounds of one '
        'process, are shown and decide nothing. Of a study by a protocol 0 repeats count until all of its runs are '
        'there. An interval over processes is their range, or that of a bootstrap where it is wider. The range covers '
        f'the median that they are drawn around with {100 * coverage(3):.0f} % for three and {100 * coverage(5):.0f} % '
        'for five: that five decide, and not three, was settled after the results were seen, and leaves more '
        'undecided. So was that no interval is narrower than the range.',
        'Two sources have no public address, so that it cannot be checked that they say what is listed: the summary of '
        'the paper, [arXiv:2303.16900](https://arxiv.org/abs/2303.16900), and the write-up, which times n×1 → 1×n. Of '
        f'such timings there are others: [a user of PyTorch]({FORUM}/decompose-nxn-kernel-into-1xn-nx1-kernels/148615) '
        'saw training slow down "almost by 2 - 2.5x" with it in the place of 7×7, and to [another]('
        f'{FORUM}/decomposing-grouped-convolutions-doesnt-result-in-speed-up/143078) it was "slightly slower" than '
        'depthwise 5×5, and gained almost 1.5 times where 5×5 was dense.']
    for title, claims in GROUPS.items():
        parts += [f'## {title}', group_table(claims, results)]
        lines = [f'- {names[0][0].upper()}{names[0][1:]}{" and others" if len(names) > 1 else ""}: {remark}'
                 for remark, names in remarks(claims, results).items()]
        parts += ['\n'.join(lines)] if lines else []
    parts += [
        "## A reviewer's checklist",
        'Of every result file: what repeats it, what was left out, under which conditions it was made, and what was '
        'decided after seeing its data. `python -m studies` lists the study that makes each. What a file does not '
        'record is said to be not recorded; [results](results/README.md) has the known faults.',
        checklist(results)]
    return '\n\n'.join(parts) + '\n'
