"""CamVid, leave one sequence out: InceptionNeXt-A and ConvNeXt-A, each with BatchNorm and with LayerNorm.

    python -m studies.camvid_sequences data/camvid --background

By the protocol in docs/studies/camvid_sequences.md. The training and validation images are of three sequences; each is
left out in turn, and what was trained on the other two is validated on it. Frames of a sequence are alike, so that the
sequences, three of them, are what the figures vary over. It takes about nine core-hours, and with `--jobs` 2 of one
thread each two cores take half as many hours; further processes may be started with the same command at any time, and
share the runs. What was interrupted goes on from its last checkpoint: the same command, given again, finishes it. JSON
and report are written anew after each seed; what the JSON has is not trained again, so that with it alone the study
goes on on another machine. --report trains nothing.
"""
import argparse
import statistics
import sys
from pathlib import Path

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, read_object, replacing, write_json, write_text

from .ablations.report import DIGITS, p_text, with_interval
from .blocked import contrasts, factorial, mean_difference
from .comparison.pictures import COLOURS, new_figure, png
from .comparison.words import listing
from .sweep import Run, plan
from .trainings import (
    ENDPOINTS,
    ROOT,
    Recorded,
    add_sharing,
    alone,
    complete,
    conditions,
    endpoint,
    failures,
    helped,
    record,
    refuse_failed,
    set_threads,
    start_in_background,
    study_environment,
    train,
)

MODULE = 'studies.camvid_sequences'
# Of the frames of each, in the order of their numbers, every so many-th is validated where it is left out: about 60 of
# each, for neighbours say the same and the time is better spent on iterations. All are trained on where it is not.
SEQUENCES = {'0001TP': 1, '0006R0': 2, '0016E5': 5}
ARMS = dict(convnext_bn='ConvNeXt-A, BatchNorm', inceptionnext_bn='InceptionNeXt-A, BatchNorm',
            convnext_ln='ConvNeXt-A, LayerNorm', inceptionnext_ln='InceptionNeXt-A, LayerNorm')
# Rows: LayerNorm, BatchNorm. Columns: ConvNeXt, InceptionNeXt.
CELLS = (('convnext_ln', 'inceptionnext_ln'), ('convnext_bn', 'inceptionnext_bn'))
FAMILY = 'InceptionNeXt − ConvNeXt'
EFFECTS = dict(zip(('BatchNorm − LayerNorm', FAMILY, f'{FAMILY}, under BatchNorm minus under LayerNorm'),
                   factorial(CELLS), strict=True))
SEEDS = 4
SPLITS = ('training', 'validation')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog=f'python -m {MODULE}', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='CamVid: images/ and annotations/ with training and validation')
    parser.add_argument('--out', type=Path, default=Path('docs/results/camvid_sequences.json'),
                        help='the JSON to write; a report and a picture beside it (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid_sequences'))
    parser.add_argument('--seeds', type=int, default=SEEDS, help='at least 4 by the protocol (default: %(default)s)')
    add_sharing(parser)
    parser.add_argument('--background', action='store_true', help='go on after the terminal is closed')
    parser.add_argument('--report', action='store_true', help='train nothing')
    parser.add_argument('--cfg-options', nargs='+', default=[], help=argparse.SUPPRESS)     # for tests
    return parser.parse_args(argv)


# Data


def splits(data):
    """Names of the training and validation images, without suffix and below ``images/``, of each sequence, in the order
    of its frames.

    Raises:
        UserError: A sequence has none, an image is of no known sequence, or an image has no annotation.
    """
    found = {sequence: [] for sequence in SEQUENCES}
    for path in sorted(path for split in SPLITS for path in (data / 'images' / split).glob('*.jpg')):
        name, sequence = f'{path.parent.name}/{path.stem}', path.name.split('_')[0]
        if sequence not in found or not (data / 'annotations' / f'{name}.png').is_file():
            raise UserError(f'{path} is of the sequence {sequence!r}, and its annotation '
                            f'{"is there" if sequence in found else "was not looked for"}. Expected: an image of '
                            f'{", ".join(SEQUENCES)} with annotations/{name}.png. Next: another folder, or remove it.')
        found[sequence].append(name)
    missing = [sequence for sequence, names in found.items() if not names]
    if missing:
        raise UserError(f'{data} has no image of {", ".join(missing)}; expected: images/training and images/validation '
                        f'with the sequences {", ".join(SEQUENCES)}, SEQUENCE_FRAME.jpg. Next: where is CamVid?')
    return {sequence: sorted(names, key=lambda name: name.rpartition('/')[2]) for sequence, names in found.items()}


def validated(found):
    """The images of each sequence that are validated where it is left out."""
    return {sequence: names[::SEQUENCES[sequence]] for sequence, names in found.items()}


def write_lists(found, folder):
    """The images to train on and to validate on where each sequence is left out: two text files for each."""
    for left_out, images in validated(found).items():
        training = [image for sequence in SEQUENCES if sequence != left_out for image in found[sequence]]
        for name, chosen in (('training', training), ('validation', images)):
            write_text(folder / f'{left_out}_{name}.txt', ''.join(f'{image}\n' for image in chosen))


def options_of(left_out, data, lists):
    """Of a training without a sequence: where the images are, and which."""
    options = []
    for loader, name in (('train', 'training'), ('val', 'validation'), ('test', 'validation')):
        dataset = f'{loader}_dataloader.dataset'
        options += [f'{dataset}.data_root={data}', f'{dataset}.ann_file={lists / f"{left_out}_{name}.txt"}',
                    f'{dataset}.data_prefix.img_path=images', f'{dataset}.data_prefix.seg_map_path=annotations']
    return options


def config_of(arm):
    family, norm = arm.split('_')
    return f'configs/ablations/powered/upernet_{family}_a_{norm}_sequences_camvid.py'


def candidates(args):
    """Every arm without each sequence, one sequence after another."""
    lists = args.work_dir / 'lists'
    found = []
    for left_out in SEQUENCES:
        planned = plan([str(ROOT / config_of(arm)) for arm in ARMS], {}, [
            *options_of(left_out, args.data, lists), *args.cfg_options], args.work_dir / f'without_{left_out}')
        found += [candidate._replace(name=f'{arm}, without {left_out}')
                  for arm, candidate in zip(ARMS, planned, strict=True)]
    return found


# Results


def effects(runs, name):
    """Of both families and norms: each effect in each sequence, and over them.

    In a sequence its seeds say how sure it is; over the sequences the three values do, with two degrees of freedom.

    Returns:
        dict[str, tuple[Comparison, dict[str, Comparison]]] | None: By effect, over the sequences and in each; None
        where a sequence has fewer than two whole seeds.
    """
    inside = {}
    for sequence in SEQUENCES:
        seeds, values = complete([run for run in runs if run['left_out'] == sequence], ARMS, name)
        if len(seeds) < 2:
            return None
        inside[sequence] = {each.name: each for each in contrasts(values, EFFECTS)[1]}
    return {effect: (mean_difference([inside[sequence][effect].difference for sequence in SEQUENCES]),
                     {sequence: inside[sequence][effect] for sequence in SEQUENCES}) for effect in EFFECTS}


def effects_of(content):
    """The effects on each endpoint; None where a run failed, or a sequence has fewer than two whole seeds.

    Each effect is of all four arms: an arm with a failed run is compared with none.
    """
    found = {name: effects(content['runs'], name) for name in ENDPOINTS}
    return None if content['failed'] or not all(found.values()) else found


def means_table(content):
    rows = []
    for arm, title in ARMS.items():
        row = [title]
        for name in ENDPOINTS:
            for sequence in SEQUENCES:
                values = [endpoint(run['curve'], name) for run in content['runs']
                          if (run['arm'], run['left_out']) == (arm, sequence)]
                values = [value for value in values if value is not None]
                row.append(f'{statistics.fmean(values):.{DIGITS[name]}f}' if values else '–')
        rows.append(row)
    columns = [f'{title}, {sequence}' for title in ENDPOINTS.values() for sequence in SEQUENCES]
    return markdown_table(['', *columns], rows)


def effects_table(found, name):
    rows = [[title, with_interval(whole, DIGITS[name]), p_text(whole.p), *(
        with_interval(inside[sequence], DIGITS[name]) for sequence in SEQUENCES)]
        for title, (whole, inside) in found.items()]
    return markdown_table([ENDPOINTS[name], 'over the three sequences', 'p', *SEQUENCES], rows)


def report(content, picture):
    """The report in Markdown."""
    done, wanted, failed = len(content['runs']), len(ARMS) * len(SEQUENCES) * content['seeds'], content['failed']
    sizes = ', '.join(f'{sequence} ({count} images, {content["validated"][sequence]} of them validated)'
                      for sequence, count in content['images'].items())
    blocks = ['# CamVid, leave one sequence out', 'By the protocol in `docs/studies/camvid_sequences.md`, written '
              'before the runs. UperNet with backbones of atto size, from scratch, trained on two sequences and '
              f'validated on the third: {sizes}.']
    if done + len(failed) < wanted:
        blocks.append(f'**Preliminary: {done} of {wanted} runs are done.** Nothing below is a result before all are.')
    if failed:
        names = listing(f'{ARMS[arm]}, without {left_out}, seed {seed}' for arm, left_out, seed in failed)
        blocks.append(f'Runs failed: {names}. Each effect needs all four arms, so that none is given. The means below '
                      'are of the runs that came to their end.')
    if found := effects_of(content):
        blocks += [
            'Over the three sequences: Student\'s 95 % interval of the three differences, two degrees of freedom, so '
            'that only what is large and alike in all three shows. In each sequence: how sure its seeds make it '
            '(seeds as blocks, Bonferroni over the three effects), which says nothing of other sequences.',
            *(effects_table(found[name], name) for name in ENDPOINTS)]
        blocks += [f'![each effect in each sequence]({picture})']
    blocks += ['## Mean of the seeds', means_table(content), '## Runs', conditions(content['runs']) +
               ' Exclusions: none.', f'```sh\n{content["environment"]["command"]}\n```']
    return '\n\n'.join(blocks) + '\n'


def draw(content):
    """Differences in each sequence and over them, of the first two effects; None where there are none."""
    found = effects_of(content)
    if not found:
        return None
    rows = [(effect, place) for effect in list(EFFECTS)[:2] for place in (*SEQUENCES, 'all three')]
    figure, axes = new_figure(len(ENDPOINTS), 7.2, 3.6)
    for ax, (name, title) in zip(axes, ENDPOINTS.items(), strict=True):
        ax.axvline(0, color='#333333', linewidth=1)
        for row, (effect, place) in enumerate(rows):
            whole, inside = found[name][effect]
            each = inside.get(place, whole)
            ax.errorbar(each.difference, row, xerr=[[each.difference - each.low], [each.high - each.difference]],
                        fmt='s' if each is whole else 'o', color=COLOURS[each is whole], capsize=3, markersize=5)
        ax.set_yticks(range(len(rows)), [f'{effect}: {place}' for effect, place in rows] if ax is axes[0] else [''] * 8)
        ax.invert_yaxis()
        ax.grid(False, axis='y')
        ax.set_xlabel(title)
    figure.suptitle('Family or norm, on a sequence that was not trained on (95 %)', fontsize=10)
    return png(figure)


def names_of(arms):
    """Of every candidate by its folder: arm and sequence that is left out."""
    planned = [dict(arm=arm, left_out=left_out) for left_out in SEQUENCES for arm in ARMS]
    return {candidate.folder: names for candidate, names in zip(arms, planned, strict=True)}


def collect(args, found, arms, failed, in_file):
    names = names_of(arms)
    planned = {(*names[candidate.folder].values(), seed): Run(candidate, seed)
               for seed in range(args.seeds) for candidate in arms}
    name_of = {run.work_dir: name for name, run in planned.items()}
    runs = [record(each, **names[each.candidate.folder]) or in_file(*each) for each in planned.values()]
    runs = [run for run in runs if run]
    return dict(
        protocol='docs/studies/camvid_sequences.md', endpoints=list(ENDPOINTS), seeds=args.seeds,
        images={sequence: len(names) for sequence, names in found.items()},
        validated={sequence: len(names) for sequence, names in validated(found).items()},
        configs={arm: config_of(arm) for arm in ARMS},
        runs=runs, failed=failures(
            args.out, [name_of[run.work_dir] for run in failed],
            [(run['arm'], run['left_out'], run['seed']) for run in runs], planned),
        environment=study_environment())


def write_report(out):
    """Report and picture beside the JSON ``out``; the paths written."""
    content = read_object(out, f'a result of {MODULE}', f'make it with python -m {MODULE}')
    picture, data = out.with_name(f'{out.stem}_effects.png'), draw(content)
    if data:
        with replacing(picture) as temporary:
            temporary.write_bytes(data)
    write_text(out.with_suffix('.md'), report(content, picture.name))
    return [out, *([picture] if data else []), out.with_suffix('.md')]


@exit_on_user_error
def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    args.data, args.out, args.work_dir = args.data.absolute(), args.out.absolute(), args.work_dir.absolute()
    found = splits(args.data)
    if args.background:
        start_in_background(MODULE, argv, args.work_dir / 'study.log')
        return
    set_threads(args.threads)
    write_lists(found, args.work_dir / 'lists')
    arms, recorded = candidates(args), Recorded(args.out, ('runs', ), ('arm', 'left_out'))
    names, images = names_of(arms), {sequence: len(found[sequence]) for sequence in SEQUENCES}
    if recorded.content.get('images', images) != images:
        raise UserError(f'{args.out} is of {recorded.content["images"]} images, and {args.data} has {images}. '
                        'Expected: one data set a file. Next: the folder that it was begun with, or another --out.')

    def in_file(candidate, seed):
        return recorded.run('runs', candidate, seed, **names[candidate.folder])

    def write(failed):
        with alone(args.work_dir):
            content = collect(args, found, arms, failed, in_file)
            if content['runs'] or content['failed']:
                write_json(args.out, content)
            return write_report(args.out) if content['runs'] else []

    failed = []
    if not args.report:
        with helped(MODULE, argv, args.jobs):
            failed = train(lambda seed: arms, range(args.seeds), write, in_file)
    for path in write(failed):
        print(f'wrote {path}')
    refuse_failed(failed, MODULE, argv)


if __name__ == '__main__':
    main()
