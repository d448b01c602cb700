"""Which cases are measured."""
import itertools

from inceptionnext_seg.errors import UserError

from .cases import GROUPINGS, MODES, Case
from .counting import output_size

KERNELS = ((3, 3), (5, 5), (6, 7), (7, 7), (11, 11))
FACTORIZED = [(form, kernel, 1.0) for kernel in KERNELS for form in (
    'square', 'sequential', 'sequential_relu', 'one_pass', 'column', 'row') if form != 'one_pass' or kernel != (6, 7)]
PARALLEL = [('inception', (11, 11), ratio) for ratio in (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)]
PARTIAL = [('partial', (3, 3), ratio) for ratio in (1 / 2, 3 / 8, 1 / 4, 1 / 8, 1 / 16)]
EVERY = [('copy', (1, 1), 1.0), *FACTORIZED, *PARALLEL, *PARTIAL]
# What is compared with a depthwise 7×7.
TOKEN_MIXERS = [('copy', (1, 1), 1.0), ('square', (5, 5), 1.0), ('square', (3, 3), 1.0), *PARTIAL, *PARALLEL,
                ('sequential', (7, 7), 1.0), ('sequential', (11, 11), 1.0)]
FEW = [
    ('copy', (1, 1), 1.0), ('square', (3, 3), 1.0), ('sequential', (3, 3), 1.0), ('square', (7, 7), 1.0),
    ('sequential', (7, 7), 1.0), ('one_pass', (7, 7), 1.0), ('column', (7, 7), 1.0), ('row', (7, 7), 1.0),
    ('inception', (11, 11), 1 / 8)]
REUSED = [(form, kernel, 1.0) for kernel in ((3, 3), (7, 7), (11, 11)) for form in ('square', 'sequential')]
# Work so small that what is left is the price of the calls. 32 channels have two in a branch of a sixteenth; with one
# image torch would run other kernels than it does on a larger input.
PROBE = dict(channels=32, size=1, batch_size=2, cache='hot')
PRICED = [*[operator for operator in FACTORIZED if operator[0] in ('square', 'sequential')], *PARALLEL,
          ('column', (7, 7), 1.0), ('sequential_relu', (7, 7), 1.0)]

BOTH_LAYOUTS = ('nchw', 'nhwc')
INFER_AND_TRAIN = ('infer', 'train')


def sweep(operators, grouping, shapes, batch_size, dtype=('fp32', ), mode=INFER_AND_TRAIN, cache=('cold', )):
    return dict(operators=operators, grouping=grouping, shapes=shapes, batch_size=batch_size, dtype=dtype,
                layout=BOTH_LAYOUTS, mode=mode, cache=cache)


# The shapes are those of ConvNeXt-T's stages for a 224 × 224 image; a dense convolution does C times the work.
STAGES = ((96, 56), (192, 28), (384, 14), (768, 7))
EVERY_SHAPE = tuple(itertools.product((32, 96, 192, 384, 768), (7, 14, 28, 56, 128)))
SUITES = dict(
    quick=[
        sweep(EVERY, ('depthwise', ), ((96, 56), ), (4, )),
        sweep(REUSED, ('depthwise', ), ((96, 56), ), (4, ), cache=('hot', )),
        sweep(EVERY, ('dense', ), ((96, 28), ), (4, )),
        sweep(REUSED, ('dense', ), ((96, 28), ), (4, ), cache=('hot', )),
        sweep(FEW, ('depthwise', ), ((32, 128), *STAGES), (4, )),
        sweep(FEW, ('dense', ), ((32, 7), (32, 14), *STAGES[1:]), (2, )),
        sweep(FEW, ('depthwise', ), ((96, 56), ), (4, ), dtype=('bf16', )),
        sweep(FEW, ('dense', ), ((96, 28), ), (4, ), dtype=('bf16', )),
        sweep(PRICED, GROUPINGS, ((PROBE['channels'], PROBE['size']), ), (PROBE['batch_size'], ), cache=('hot', )),
    ],
    full=[
        sweep(EVERY, ('depthwise', ), EVERY_SHAPE, (1, 16), dtype=('fp32', 'bf16'), mode=tuple(MODES)),
        sweep(REUSED, ('depthwise', ), EVERY_SHAPE, (1, 16), dtype=('fp32', 'bf16'), mode=tuple(MODES),
              cache=('hot', )),
        sweep(EVERY, ('dense', ), EVERY_SHAPE, (1, ), dtype=('fp32', 'bf16'), mode=tuple(MODES)),
        sweep(REUSED, ('dense', ), EVERY_SHAPE, (1, ), dtype=('fp32', 'bf16'), mode=tuple(MODES), cache=('hot', )),
        sweep(PRICED, GROUPINGS, ((PROBE['channels'], PROBE['size']), ), (PROBE['batch_size'], ),
              dtype=('fp32', 'bf16'), mode=tuple(MODES), cache=('hot', )),
    ])


def select(suite, **filters):
    """The cases of a suite, without repetition.

    Args:
        suite (str): Of :data:`SUITES`.
        filters: Lists by attribute of :class:`Case`. ``form``, ``kernel``, ``grouping`` and ``cache`` keep what is in
            them; the others replace the suite's values, so that any size can be had. None or empty leaves it as it is.

    Raises:
        UserError: No case is left.
    """
    filters = {name: values for name, values in filters.items() if values}
    cases = {}
    for grid in SUITES[suite]:
        shapes = grid['shapes']
        probe = shapes == ((PROBE['channels'], PROBE['size']), )
        if not probe and ('channels' in filters or 'size' in filters):
            channels = filters.get('channels') or list(dict.fromkeys(c for c, _ in shapes))
            sizes = filters.get('size') or list(dict.fromkeys(s for _, s in shapes))
            shapes = tuple(itertools.product(channels, sizes))
        replaced = {name: filters.get(name) or grid[name] for name in ('dtype', 'layout', 'mode')}
        batch_sizes = grid['batch_size'] if probe else filters.get('batch_size') or grid['batch_size']
        for values in itertools.product(grid['operators'], grid['grouping'], shapes, batch_sizes, *replaced.values(),
                                        grid['cache']):
            (form, kernel, ratio), grouping, (channels, size), batch_size, dtype, layout, mode, cache = values
            case = Case(form, kernel, ratio, grouping, channels, size, batch_size, dtype, layout, mode, cache)
            kept = all(getattr(case, name) in filters.get(name, [getattr(case, name)])
                       for name in ('form', 'kernel', 'grouping', 'cache'))
            possible = int(channels * ratio) > 0 and min(output_size(case)) > 0 and (
                form != 'copy' or grouping == grid['grouping'][0])
            if kept and possible:
                cases[case] = None
    if not cases:
        raise UserError(f'no case of the suite {suite!r} is left by the filters {filters}; expected at least one. '
                        'Next: leave out some of --form, --kernel, --grouping, --cache')
    return list(cases)
