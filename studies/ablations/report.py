"""The report, from the JSON alone: which change costs what, at which confidence."""
import statistics

from inceptionnext_seg.files import markdown_table, read_object, replacing, write_text

from ..comparison.words import listing
from ..trainings import ENDPOINTS, conditions
from .analysis import INTERACTION, analyse, pilot_differences, verdict, without_common_variance
from .arms import CONTROL, FACTORIAL, MAIN, PILOT, PILOT_SEEDS, REFERENCE, TITLES
from .pictures import curves_picture, effects_picture
from .speed import speed_file, throughput

DIGITS = dict(cross_entropy=4, mIoU=2)


def with_interval(comparison, digits):
    return f'{comparison.difference:+.{digits}f} ({comparison.low:+.{digits}f} to {comparison.high:+.{digits}f})'


def p_text(p):
    return '–' if p is None else '< 0.001' if p < 0.001 else f'{p:.3f}'


def main_table(content, found, speeds):
    rows = []
    fits = {name: found[name][0] for name in ENDPOINTS}
    comparisons = {name: {each.name: each for each in found[name][1]} for name in ENDPOINTS}
    control = [arm for arm in CONTROL if arm in fits['mIoU'].means]
    for arm, title in MAIN.items():
        cost, speed = content['costs'][arm], speeds.get(arm)
        arms = control if arm == REFERENCE else [arm]
        if arm != REFERENCE and arm not in fits['mIoU'].means:
            row = ['a run failed', *['–'] * 6]
        else:
            row = []
            for name in ENDPOINTS:
                each = comparisons[name].get(arm)
                row += [f'{statistics.fmean(fits[name].means[one] for one in arms):.{DIGITS[name]}f}',
                        *compared(each, name)]
            row.append('the reference' if arm == REFERENCE else verdict(comparisons['cross_entropy'][arm]))
        rows.append([title, *row, f'{cost["parameters"] / 1e6:.2f} M', f'{cost["macs"] / 1e9:.3f} G',
                     '–' if speed is None else str(speed['ratio'])])
    return markdown_table(
        ['arm', 'cross-entropy', 'to Inception', 'p of equivalence', 'mIoU', 'to Inception', 'p of equivalence',
         'verdict', 'parameters', 'MACs', 'training speed, × Inception'], rows)


def compared(comparison, name):
    """Cells of a comparison: its interval, and p of equivalence."""
    return ['–', '–'] if comparison is None else [
        with_interval(comparison, DIGITS[name]), p_text(comparison.equivalent)]


def contrast_table(found, title):
    """A row a contrast. An interaction is neither better nor worse."""
    rows = []
    for loss, miou in zip(found['cross_entropy'][1], found['mIoU'][1], strict=True):
        (difference, equal), rest = compared(loss, 'cross_entropy'), compared(miou, 'mIoU')
        rows.append([loss.name, difference, p_text(loss.p), equal, *rest,
                     '–' if loss.name == INTERACTION else verdict(loss)])
    return markdown_table(
        [title, 'cross-entropy', 'p', 'p of equivalence', 'mIoU', 'p of equivalence', 'verdict'], rows)


def cells_table(found):
    """Means of the 2 × 2; that of Inception is of the control's arms."""
    rows = []
    for row in FACTORIAL:
        for arm in row:
            arms = [one for one in CONTROL if one in found['mIoU'][0].means] if arm == REFERENCE else [arm]
            rows.append([TITLES[arm] + ('' if arm.startswith('ln_') else ', BatchNorm'), *(
                f'{statistics.fmean(found[name][0].means[one] for one in arms):.{DIGITS[name]}f}'
                for name in ENDPOINTS)])
    return markdown_table(['cell', *ENDPOINTS.values()], rows)


def sensitivity_table(content):
    if (found := without_common_variance(content)) is None:
        return ''
    deviations, ps = found
    return markdown_table(
        ['arm', 'deviation of what arm and seed leave (nats)', 'p, paired t and Holm'],
        [[TITLES[arm], f'{deviation:.4f}', p_text(ps.get(arm))] for arm, deviation in deviations.items()])


def pilot_table(content):
    rows = [[f'{at} iterations', *(with_interval(each[name], DIGITS[name]) if name in each else '–'
                                   for name in ENDPOINTS)] for at, each in pilot_differences(content).items()]
    return markdown_table([f'{TITLES[PILOT[0]]}, less {TITLES[PILOT[1]]}', *ENDPOINTS.values()], rows) if rows else ''


def state(part, wanted):
    done = len(part['seeds'])
    return '' if done == wanted else (
        f'**Preliminary: {done} of {wanted} seeds are whole.** Nothing below is a result before all are. ')


def control_in_words(main):
    """In words: the arms of Inception that have not failed."""
    left = sum(arm in main['mIoU'][0].means for arm in CONTROL)
    return f'the {left} arms' if left == len(CONTROL) else f'{left} of the {len(CONTROL)} arms'


def plan_text(plan):
    spread = ', '.join(f'{title} {plan["spread"][name]["deviation"]:.{DIGITS[name]}f} (upper 80 % limit '
                       f'{plan["spread"][name]["upper"]:.{DIGITS[name]}f})' for name, title in ENDPOINTS.items())
    bound, pace = plan['bounds']['cross_entropy'], plan['seconds']
    said = []
    for name, title in ENDPOINTS.items():
        power = plan['power'][name]
        shown = '' if power['difference'] is None else (
            f'a point of mIoU, or what it is worth, is shown with probability {power["difference"]:.2f}, and that '
            f'nothing differs by as much, where nothing differs, with {power["equivalence"]:.2f}; ')
        said.append(f'by {title} {shown}{power["smallest_effect"]:.{DIGITS[name]}f} is shown with probability 0.80')
    given = ' (given, not decided)' if plan.get('seeds_given') else ''
    early = ('The hours decided, so that the arms are compared before they have learned what they can. '
             if plan['iterations'] < plan['iterations_wanted'] else '')
    return (
        f'The pilot ({listing(TITLES[arm] for arm in PILOT)}; its seeds are not among those tested) decided '
        f'{plan["iterations"]} iterations ({plan["iterations_wanted"]} by the curves, at most '
        f'{plan["iterations_affordable"]} in {plan["core_hours"]:g} core-hours, with {pace["iteration"]:.2f} s an '
        f'iteration, {pace["validation"]:.1f} s a validation and {pace["overhead"]:.0f} s for the rest of a run) and '
        f'{plan["seeds"]} seeds{given}. {early}Of one arm, {"; ".join(said)}. Standard deviation of what arm and seed '
        f'leave: {spread}. ' + (
            'A point of mIoU went with no fall of the cross-entropy, so that no equivalence can be shown, and mIoU '
            'decided the number of seeds.' if bound is None else
            f'Along the pilot\'s curves a point of mIoU is worth {bound:.4f} nats.'))


def report(content, speeds, pictures):
    """The report in Markdown."""
    blocks = ['# Ablations of token mixer and norm', 'By the protocol in `docs/studies/ablations.md`, written '
              'before the runs. The first three stages of InceptionNeXt-A under UperNet, '
              'from scratch on drawn scenes: neither size nor order of the differences need carry over to photographs, '
              'to pretrained weights or to larger networks.']
    runs = ['## Runs', conditions([*content['pilot'], *content['runs']]) + ' Exclusions: none.',
            f'```sh\n{content["environment"]["command"]}\n```']
    if (plan := content['plan']) is None:
        done, wanted = len(content['pilot']), len(PILOT) * len(PILOT_SEEDS)
        blocks.append(f'**Preliminary: {done} of {wanted} runs of the pilot are done.** It decides length and seeds; '
                      'nothing is compared before.')
        if failed := content.get('failed_in_pilot'):
            blocks.append(f'Runs of it failed: {listing(f"{TITLES[arm]}, seed {seed}" for arm, seed in failed)}. '
                          'Without them it decides nothing.')
        return '\n\n'.join([*blocks, *runs]) + '\n'
    found = analyse(content)
    blocks.append(plan_text(plan))
    if found['failed']:
        blocks.append(f'Runs failed of: {listing(TITLES[arm] for arm in found["failed"])}. Such an arm is compared '
                      'with none.')
    if main := found.get('main'):
        blocks += ['## What each change to the token mixer costs', state(main, plan['seeds']) + (
            f'Differences are to the mean of {control_in_words(main)} of Inception, with simultaneous 95 % intervals '
            f'(Dunnett, seeds as blocks, pooled variance, {main["mIoU"][0].df} degrees of freedom). Cross-entropy '
            'decides; mIoU stands beside it and shows nothing by itself. Equivalence: two one-sided tests against a '
            'point of mIoU, or what it is worth in nats, p by Holm over the arms.'), main_table(content, main, speeds)]
        blocks += [f'![differences to Inception with their intervals]({pictures["effects"]})'] if pictures.get(
            'effects') else []
        blocks.append('Training speed: all arms in torch\'s operators, with the same head, each in its faster layout; '
                      'five processes, by turns.' if speeds else 'Training speed is not measured yet.')
    if pairs := found.get('pairs'):
        blocks += ['## Arms against each other', state(pairs, plan['seeds']) + 'The second family: the same runs and '
                   'the same pooled variance, Bonferroni over the three.', contrast_table(pairs, 'comparison')]
    if cells := found.get('factorial'):
        blocks += ['## Norm or token mixer', state(cells, plan['seeds']) + 'The third family: main effects and '
                   'interaction of a 2 × 2, and the two networks that differ in both; seeds as blocks, Bonferroni over '
                   'the four.', contrast_table(cells, 'effect'), cells_table(cells)]
    if same := found.get('same'):
        blocks += ['## One network against itself', state(same, plan['seeds']) + 'The arms of Inception differ in the '
                   'draw of their initial values alone: what is shown here is chance. Bonferroni over the three.',
                   contrast_table(same, 'comparison')]
    if sensitivity := sensitivity_table(content):
        blocks += ['## Without one variance for all', 'No verdict rests on this: each arm\'s own deviation, and its '
                   'cross-entropy against that of Inception by Student\'s paired t.', sensitivity]
    blocks += ['## The pilot']
    if table := pilot_table(content):
        blocks += ['Exploratory, of the four seeds that decided the length: differences by seed with Student\'s 95 % '
                   'interval, at the length that was decided and at the end.', table]
    if pictures.get('curves'):
        blocks += [f'![cross-entropy and mIoU of the pilot over iterations]({pictures["curves"]})']
    return '\n\n'.join([*blocks, *runs]) + '\n'


def drawn(content):
    """PNGs by name, of what can be drawn; none before the pilot has decided."""
    if content['plan'] is None:
        return {}
    main = analyse(content).get('main')
    found = dict(curves=curves_picture(content), effects=effects_picture(main, content['plan']['bounds']))
    return {name: data for name, data in found.items() if data}


def write_report(out):
    """Report and pictures beside the JSON ``out``; the paths written."""
    content = read_object(out, 'a result of studies.ablations', 'make it with python -m studies.ablations')
    pictures, written = {}, [out]
    for name, data in drawn(content).items():
        path = out.with_name(f'{out.stem}_{name}.png')
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        pictures[name] = path.name
        written.append(path)
    write_text(out.with_suffix('.md'), report(content, throughput(speed_file(out)), pictures))
    return [*written, out.with_suffix('.md')]
