"""The report, from the JSON alone: which change costs what, at which confidence."""
from inceptionnext_seg.files import markdown_table, read_object, replacing, write_text

from ..blocked import LEVEL, against, contrasts, factorial
from ..comparison.words import listing
from ..trainings import ENDPOINTS, complete, conditions
from .arms import FACTORIAL, MAIN, PILOT, REFERENCE, TITLES
from .pictures import curves_picture, effects_picture
from .speed import speed_file, throughput

EFFECTS = ('LayerNorm − BatchNorm', 'Inception − 7×7', 'Inception − 7×7, under LayerNorm minus under BatchNorm')
DIGITS = dict(cross_entropy=4, mIoU=2)


def shown(comparison):
    return not comparison.low <= 0 <= comparison.high


def verdict(loss, miou):
    """In words, the first endpoint deciding: a lower cross-entropy is better."""
    small = miou.equivalent is not None and miou.equivalent < LEVEL
    if shown(loss):
        return ('worse' if loss.difference > 0 else 'better') + (', by less than a point of mIoU' if small else '')
    return 'equivalent: within a point of mIoU' if small else 'undecided'


def with_interval(comparison, digits):
    return f'{comparison.difference:+.{digits}f} ({comparison.low:+.{digits}f} to {comparison.high:+.{digits}f})'


def p_text(p):
    return '–' if p is None else '< 0.001' if p < 0.001 else f'{p:.3f}'


def analyse(content):
    """Comparisons of both endpoints: of the ten arms, and of norm × mixer; None where fewer than two seeds are whole.

    An arm with a run that failed is compared with none, and stands in the table as failed.
    """
    failed = {arm for arm, _ in content['failed']}
    bounds, found = content['plan']['bounds'], dict(failed=sorted(failed))
    cells = [name for row in FACTORIAL for name in row]
    for part, arms in (('main', [arm for arm in MAIN if arm not in failed]), ('factorial', cells)):
        if REFERENCE not in arms or len(arms) < 2 or (part == 'factorial' and failed & set(cells)):
            continue
        seeds, results = None, {}
        for name in ENDPOINTS:
            seeds, values = complete(content['runs'], arms, name)
            if len(seeds) < 2:
                break
            results[name] = (
                against(values, REFERENCE, bounds.get(name)) if part == 'main' else
                contrasts(values, dict(zip(EFFECTS, factorial(FACTORIAL), strict=True)), bounds.get(name)))
        else:
            found[part] = dict(seeds=seeds, **results)
    return found


def main_table(content, found, speeds):
    rows = []
    fits = {name: found[name][0] for name in ENDPOINTS}
    comparisons = {name: {each.name: each for each in found[name][1]} for name in ENDPOINTS}
    for arm, title in MAIN.items():
        cost, speed = content['costs'][arm], speeds.get(arm)
        if arm not in fits['mIoU'].means:
            row = ['a run failed', *['–'] * 5]
        else:
            each = [comparisons[name].get(arm) for name in ENDPOINTS]
            row = []
            for name, comparison in zip(ENDPOINTS, each, strict=True):
                row += [f'{fits[name].means[arm]:.{DIGITS[name]}f}',
                        '–' if comparison is None else with_interval(comparison, DIGITS[name])]
            row += [p_text(each[1] and each[1].equivalent), 'the reference' if arm == REFERENCE else verdict(*each)]
        rows.append([title, *row, f'{cost["parameters"] / 1e6:.2f} M', f'{cost["macs"] / 1e9:.3f} G',
                     '–' if speed is None else str(speed['ratio'])])
    return markdown_table(
        ['arm', 'cross-entropy', 'to Inception', 'mIoU', 'to Inception', 'p of equivalence', 'verdict', 'parameters',
         'MACs', 'training speed, × Inception'], rows)


def factorial_table(found):
    rows = []
    for loss, miou in zip(found['cross_entropy'][1], found['mIoU'][1], strict=True):
        rows.append([loss.name, with_interval(loss, 4), p_text(loss.p), with_interval(miou, 2), p_text(miou.p),
                     p_text(miou.equivalent)])
    means = [[TITLES[arm] + ('' if arm.startswith('ln_') else ', BatchNorm'), *(
        f'{found[name][0].means[arm]:.{DIGITS[name]}f}' for name in ENDPOINTS)] for row in FACTORIAL for arm in row]
    return '\n\n'.join([
        markdown_table(['effect', 'cross-entropy', 'p', 'mIoU', 'p', 'p of equivalence'], rows),
        markdown_table(['cell', *ENDPOINTS.values()], means)])


def state(content, part, wanted):
    done = len(part['seeds']) if part else 0
    return '' if done == wanted else (
        f'**Preliminary: {done} of {wanted} seeds are whole.** Nothing below is a result before all are. ')


def plan_text(plan):
    bound = plan['bounds']['cross_entropy']
    spread = ', '.join(f'{title} {plan["spread"][name]["deviation"]:.{DIGITS[name]}f} (upper 80 % limit '
                       f'{plan["spread"][name]["upper"]:.{DIGITS[name]}f})' for name, title in ENDPOINTS.items())
    return (
        f'The pilot ({listing(TITLES[arm] for arm in PILOT)}; its seeds are not among those tested) decided '
        f'{plan["iterations"]} iterations ({plan["iterations_wanted"]} by the curves, at most '
        f'{plan["iterations_affordable"]} in {plan["hours"]:g} hours) and {plan["seeds"]} seeds, with which one point '
        f'of mIoU is shown with probability {plan["power"]:.2f}; with probability 0.80 it is '
        f'{plan["smallest_effect"]:.2f} points. Standard deviation of what arm and seed leave: {spread}. '
        + ('A point of mIoU went with no fall of the cross-entropy.' if bound is None else
           f'Along the pilot\'s curves a point of mIoU goes with {bound:.4f} nats.'))


def report(content, speeds, pictures):
    """The report in Markdown."""
    found, plan = analyse(content), content['plan']
    blocks = ['# Ablations of token mixer and norm', 'By the protocol in `docs/studies/ablations.md`, written '
              'before the runs. The first three stages of InceptionNeXt-A under UperNet, '
              'from scratch on drawn scenes: neither size nor order of the differences need carry over to photographs, '
              'to pretrained weights or to larger networks.', plan_text(plan)]
    if found['failed']:
        blocks.append(f'Runs failed of: {listing(TITLES[arm] for arm in found["failed"])}. Such an arm is compared '
                      'with none.')
    if 'main' in found:
        blocks += ['## What each change to the token mixer costs', state(content, found['main'], plan['seeds']) + (
            'Differences are to Inception, with simultaneous 95 % intervals (Dunnett, seeds as blocks, pooled '
            f'variance, {found["main"]["mIoU"][0].df} degrees of freedom). Cross-entropy decides; mIoU is the second '
            'endpoint and shows nothing by itself. Equivalence: two one-sided tests against one point of mIoU, p by '
            'Holm over the arms.'), main_table(content, found['main'], speeds)]
        blocks += [f'![differences to Inception with their intervals]({pictures["effects"]})'] if pictures.get(
            'effects') else []
        blocks.append('Training speed: all arms in torch\'s operators, with the same head; five processes, by turns.'
                      if speeds else 'Training speed is not measured yet.')
    if 'factorial' in found:
        blocks += ['## Norm or token mixer', state(content, found['factorial'], plan['seeds'])
                   + 'Main effects and interaction of a 2 × 2, seeds as blocks, Bonferroni over the three.',
                   factorial_table(found['factorial'])]
    if pictures.get('curves'):
        blocks += ['## The pilot', f'![cross-entropy and mIoU of the pilot over iterations]({pictures["curves"]})']
    blocks += ['## Runs', conditions([*content['pilot'], *content['runs']]) + ' Exclusions: none.',
               f'```sh\n{content["environment"]["command"]}\n```']
    return '\n\n'.join(blocks) + '\n'


def write_report(out):
    """Report and pictures beside the JSON ``out``; the paths written."""
    content = read_object(out, 'a result of studies.ablations', 'make it with python -m studies.ablations')
    speeds, found = throughput(speed_file(out)), analyse(content)
    drawn = dict(curves=curves_picture(content), effects=effects_picture(found.get('main'), content['plan']['bounds']))
    pictures, written = {}, [out]
    for name, data in drawn.items():
        if data:
            path = out.with_name(f'{out.stem}_{name}.png')
            with replacing(path) as temporary:
                temporary.write_bytes(data)
            pictures[name] = path.name
            written.append(path)
    write_text(out.with_suffix('.md'), report(content, speeds, pictures))
    return [*written, out.with_suffix('.md')]
