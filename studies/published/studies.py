"""Every study: what it asks, what it needs, how long it takes, which result file it writes, and its commands."""
from typing import NamedTuple

from inceptionnext_seg.errors import UserError

from .files import read
from .machine import PUBLISHED

MACHINE = '{machine}'
CAMVID = 'CamVid in data/camvid: images/ and annotations/ with training and validation'
QUIET = 'a machine with no other work'
# Whole segmentors of other libraries, and MMSegmentation's own ConvNeXt.
LIBRARIES = "pip install -e '.[test]'"


class Study(NamedTuple):
    """One study.

    Attributes:
        question (str): What it answers.
        result (str): The result file, below docs/results; ``{machine}`` is the folder of the machine.
        commands (tuple[str]): Run one after the other.
        needs (str): Beside the package and its extra ``studies``.
        takes (str): On two cores, where the result file does not record it.
        measuring (int): The command that options are added to.
    """
    question: str
    result: str
    commands: tuple
    needs: str = ''
    takes: str = ''
    measuring: int = 0


def swept(name, work_dir, configs, options):
    """Commands that train configs with several seeds and publish the report of them."""
    return (f'tools/sweep.py {configs} {options} --work-dir work_dirs/{work_dir}',
            f'tools/compare.py --from work_dirs/{work_dir}/report.json --out docs/results/{name}.md')


SPEED = f'-m studies.speed --out docs/results/{MACHINE}/speed.json'
GENERALIZATION = 'configs/generalization/upernet_timm_mobilenetv3_small'
STUDIES = {
    'speed': Study('whole segmentors and backbones: stock, other libraries, ours plain and accelerated, both layouts',
                   f'{MACHINE}/speed.json', (SPEED, ), f'{QUIET}; {LIBRARIES}'),
    'memory': Study('peak memory of a process that trains or predicts', f'{MACHINE}/speed.json',
                    (f'{SPEED} --memory', ), LIBRARIES, 'not recorded'),
    'operators': Study('square, factorized and Inception convolutions, one by one, and whole networks of them',
                       f'{MACHINE}/operators.json',
                       (f'-m studies.operators --out docs/results/{MACHINE}/operators.json', ), QUIET,
                       'not recorded; goes on where it was stopped'),
    'operator_choices': Study('every form of every operator at the shapes of whole networks',
                              f'{MACHINE}/operator_choices.json',
                              (f'-m studies.operator_choices --out docs/results/{MACHINE}/operator_choices.json', ),
                              QUIET, 'not recorded'),
    'accelerate_others': Study("other people's segmentors before and after accelerate", 'accelerate_others.json',
                               ('tools/accelerate_others.py', ), f'{QUIET}; {LIBRARIES}'),
    'inference': Study('torch, torch.compile, ONNX Runtime and OpenVINO on plain and rewritten graphs, by turns',
                       f'{MACHINE}/inference.json', (
                           '-m studies.inference --files work_dirs/exported --write --out work_dirs/exported/x.json',
                           '-m studies.inference --files work_dirs/exported --out '
                           f'docs/results/{MACHINE}/inference.json'),
                       f"{QUIET}; pip install -e '.[export-int8]'", measuring=1),
    'window_memory': Study('peak memory of sliding windows, of stock and of ours, and of an image of 8000×8000',
                           f'{MACHINE}/window_memory.json',
                           (f'-m studies.window_memory --out docs/results/{MACHINE}/window_memory.json', ), 'Linux',
                           'not recorded; goes on where it was stopped'),
    'window_speed': Study('time of sliding windows, of stock and of ours', f'{MACHINE}/window_speed.json',
                          (f'-m studies.window_speed --out docs/results/{MACHINE}/window_speed.json', ), QUIET),
    'backbone_limit': Study("InceptionNeXt-T's matrix products alone, beside both backbones",
                            f'{MACHINE}/backbone_limit.json',
                            (f'-m studies.backbone_limit --out docs/results/{MACHINE}/backbone_limit.json', ), QUIET),
    'own_recipe': Study("the recipe for one's own images on CamVid, an hour of one core", f'{MACHINE}/camvid_own.json',
                        ('-m studies.own_recipe data/camvid --threads 1 --only recipe '
                         f'--out docs/results/{MACHINE}/camvid_own.json', ), CAMVID,
                        'an hour for each of 3 runs; goes on where it was stopped'),
    'own_recipe_25_minutes': Study(
        "the recipe for one's own images, 25 minutes on one core, and without each of its parts",
        f'{MACHINE}/camvid_own_25min.json',
        ('-m studies.own_recipe data/camvid --minutes 25 --threads 1 --ablation-seeds 0 1 '
         f'--out docs/results/{MACHINE}/camvid_own_25min.json --only recipe no_ema '
         'no_balance no_augmentation crop_128', ), CAMVID,
        '25 minutes for each of 9 runs; goes on where it was stopped'),
    'camvid': Study('InceptionNeXt-A against ConvNeXt-A on CamVid', 'camvid.json', (
        'tools/sweep.py configs/upernet_inceptionnext_a_camvid.py configs/upernet_convnext_a_camvid.py '
        '--seeds 0 1 2 --work-dir work_dirs/camvid',
        'tools/compare.py --from work_dirs/camvid/report.json --out docs/results/camvid.md'), CAMVID),
    'ablations': Study('token mixers and norms with power, by docs/studies/ablations.md',
                       'ablations.json', ('-m studies.ablations all --out docs/results/ablations.json', ),
                       takes='about eleven core-hours, two processes at once; goes on where it was stopped'),
    'ablations_speed': Study('throughput of the arms of the ablations, all in one implementation',
                             'ablations_speed.json', ('-m studies.ablations speed', ), QUIET, 'not recorded'),
    'camvid_sequences': Study('both families with both norms on CamVid, one sequence left out', 'camvid_sequences.json',
                              ('-m studies.camvid_sequences data/camvid --out docs/results/camvid_sequences.json', ),
                              CAMVID, 'about nine core-hours, two processes at once; goes on where it was stopped'),
    'generalization': Study('MobileNetV3-small with and without Inception convolutions', 'generalization_mini.json',
                            swept('generalization_mini', 'generalization',
                                  f'{GENERALIZATION}_mini.py {GENERALIZATION}_inception_mini.py',
                                  '--seeds 0 1 --cfg-options train_cfg.max_iters=300 train_cfg.val_interval=150')),
    'complexity': Study('parameters and MACs of UperNet-T', 'complexity.json', (
        'tools/complexity.py configs/upernet_convnext_t_ade20k.py configs/upernet_inceptionnext_t_ade20k.py '
        '--out docs/results/complexity.md docs/results/complexity.json', ), takes='seconds'),
    'replacement': Study("depthwise convolutions replaced in timm's models, counted", 'replacement.json', (
        '-m studies.replacement_report convnext_atto efficientnet_b0 mobilenetv3_small_100 tf_efficientnet_b0 '
        '--out docs/results/replacement.md docs/results/replacement.json', ), takes='seconds'),
    'gpu': Study('tests, throughput and memory on a GPU', 'GPU/gpu.json', ('tools/gpu.py', ),
                 'a CUDA GPU', 'all of it was never run; three of its cells took 2.5 minutes on an H100; goes on where '
                 'it was stopped'),
    'gpu_estimate': Study('a training step on GPUs, counted, not measured', 'gpu_estimate.json',
                          ('-m studies.gpu.estimate', ), takes='minutes'),
    'gpu_stream': Study('what a residual stream in half precision loses', 'gpu_stream.json',
                        ('-m studies.gpu.stream', ), takes='a minute'),
    'kills': Study('training that is killed, against training that is not', 'reliability/kills.json',
                   ('tools/reliability.py --out docs/results/reliability/kills.json', )),
    'fuzz': Study('10,000 random inputs', 'reliability/fuzz.json',
                  ('tools/fuzz.py --out docs/results/reliability/fuzz.json', )),
    'sanitize': Study('the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer',
                      'reliability/sanitize.json',
                      ('tests/sanitize/run.py --out docs/results/reliability/sanitize.json', ), 'g++', 'minutes'),
    'long_run': Study('2,000 iterations: do memory, open files or time grow?', 'reliability/long_run.json',
                      ('tools/long_run.py --out docs/results/reliability/long_run.json', ), QUIET,
                      'about a quarter of an hour')}


def study_of(name):
    """The study of this name.

    Raises:
        UserError: There is none of this name.
    """
    if name not in STUDIES:
        raise UserError(f'{name!r} is no study; expected one of {", ".join(STUDIES)}. Next: python -m studies lists '
                        'them with what each needs.')
    return STUDIES[name]


def recorded_seconds(content):
    """How long the measuring behind a result file took, as far as it records that; None where it does not."""
    if 'candidates' in content:
        return sum(run['metrics']['seconds'] for candidate in content['candidates'] for run in candidate['runs'])
    if 'measurements' in content:   # of accelerate_others
        return sum(sum(rounds) for found in content['measurements'] for forms in found['seconds'].values()
                   for rounds in forms.values())
    if 'records' in content:        # of speed: a first step that counts is among the seconds, too, less rounded
        return sum(sum(record['seconds']) + record['first'] * (abs(record['first'] - record['seconds'][0]) > 1e-3)
                   for record in content['records'])
    if isinstance(content.get('processes'), list):      # of window_speed
        return sum(sum(row['seconds']) for process in content['processes'] for row in process['rows'])
    if any('wall' in run for run in content.get('runs', ())):       # of inference
        return sum(run['wall'] for run in content['runs'])
    if 'pieces' in content:
        return sum(piece['seconds'] for piece in content['pieces'])
    if isinstance(content.get('cases'), dict):
        return sum(case['seconds'] for case in content['cases'].values())
    return None


def duration(seconds):
    minutes = seconds / 60
    return f'{seconds:.0f} s' if minutes < 2 else f'{minutes:.0f} min' if minutes < 120 else f'{minutes / 60:.1f} h'


def takes(study, results):
    """How long a study takes, in words: as it says itself, or as the published result file records it."""
    path = results / study.result.replace(MACHINE, PUBLISHED)
    if study.takes:
        return study.takes
    seconds = recorded_seconds(read(path)) if path.is_file() else None
    return 'not recorded' if seconds is None else f'{duration(seconds)} of runs, as recorded'
