"""What is compared, and at which settings."""
from dataclasses import dataclass
from typing import NamedTuple

from ..other_segmentors import hugging_face, smp
from ..throughput.candidates import AS_SHIPPED, CHANGES, DEPLOYED, IN_MODE, NONE, STOCK
from ..throughput.setting import Setting

LAYOUTS = ('nchw', 'nhwc')
INCEPTIONNEXT, CONVNEXT = (f'configs/upernet_{family}_t_ade20k.py' for family in ('inceptionnext', 'convnext'))
# Multiply-accumulates of a backbone's convolutions for one image of 512×512, counted from its shapes.
BACKBONE_GMACS = dict(convnext=23.27, inceptionnext=21.86)
SMALL = 'configs/upernet_inceptionnext_a_camvid.py'
PARTS = {mode: [change for change in CHANGES if change in IN_MODE[mode]] for mode in IN_MODE}


class Candidate(NamedTuple):
    """One way to run a network.

    Attributes:
        label (str): Its name in tables and pictures.
        source (str): A name of :mod:`studies.throughput.candidates`, or of :data:`LIBRARIES`.
        layouts (tuple[str]): Those that it is measured in.
        options (dict | None): Changes of the config.
    """
    label: str
    source: str
    layouts: tuple = LAYOUTS
    options: dict | None = None


# Segmentors of other libraries; smp's have no auxiliary head, which saves them a part of a training step.
LIBRARIES = {
    'smp-inceptionnext': lambda: smp('UPerNet', 'tu-inception_next_tiny', decoder_channels=512),
    'smp-convnext': lambda: smp('UPerNet', 'tu-convnext_tiny', decoder_channels=512),
    'hf-convnext': lambda: hugging_face(
        'ConvNextConfig', hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3])}

CANDIDATES = {
    'stock': Candidate('MMSegmentation ConvNeXt-T (stock)', STOCK),
    'as-shipped': Candidate('stock, as shipped', AS_SHIPPED, ('nchw', )),
    'smp-inceptionnext': Candidate('smp InceptionNeXt-T', 'smp-inceptionnext'),
    'smp-convnext': Candidate('smp ConvNeXt-T', 'smp-convnext'),
    'hf-convnext': Candidate('Hugging Face ConvNeXt-T', 'hf-convnext'),
    'convnext-plain': Candidate('our ConvNeXt-T, plain', f'{CONVNEXT}::{NONE}'),
    'inceptionnext-plain': Candidate('our InceptionNeXt-T, plain', f'{INCEPTIONNEXT}::{NONE}'),
    'convnext': Candidate('our ConvNeXt-T', CONVNEXT),
    'inceptionnext': Candidate('our InceptionNeXt-T', INCEPTIONNEXT),
    'convnext-deployed': Candidate('our ConvNeXt-T, deploy form', f'{CONVNEXT}::{DEPLOYED}', ('nhwc', )),
    'inceptionnext-deployed': Candidate('our InceptionNeXt-T, deploy form', f'{INCEPTIONNEXT}::{DEPLOYED}', ('nhwc', )),
    'small-plain': Candidate('our InceptionNeXt-A, plain', f'{SMALL}::{NONE}'),
    'small': Candidate('our InceptionNeXt-A', SMALL)}
# Plain with one part, and accelerated without it, in the layout of the accelerated model.
CANDIDATES |= {f'only {part}': Candidate(f'{part} alone', f'{INCEPTIONNEXT}::{part}', ('nhwc', )) for part in CHANGES}
CANDIDATES |= {f'without {part}': Candidate(f'all but {part}', INCEPTIONNEXT, ('nhwc', ), options)
               for part, options in CHANGES.items()}


@dataclass(frozen=True)
class Cell:
    """One comparison: a setting, and of each candidate in how many processes it is measured.

    Attributes:
        suite (str): The question that it belongs to.
        candidates (dict[str, int]): Processes by name of :data:`CANDIDATES`.
        layouts (tuple[str]): Those of the candidates' that are measured.
    """
    suite: str
    mode: str
    dtype: str
    batch_size: int
    size: int
    candidates: dict
    part: str = 'segmentor'
    threads: int = 2
    layouts: tuple = LAYOUTS

    @property
    def name(self):
        part = f'{self.suite} ' if self.suite in ('backbone', 'parts', 'small') else ''
        threads = '' if self.threads == 2 else f', {self.threads} thread'
        return f'{part}{self.mode} {self.dtype} {self.batch_size}×{self.size}×{self.size}{threads}'

    @property
    def setting(self):
        return Setting(self.mode, self.part, self.batch_size, self.size, self.dtype)


def of(processes, *names):
    return dict.fromkeys(names, processes)


MAIN = ('stock', 'convnext', 'inceptionnext')
OTHERS = ('smp-inceptionnext', 'smp-convnext', 'hf-convnext')
PLAIN = ('convnext-plain', 'inceptionnext-plain')
DEPLOY = ('convnext-deployed', 'inceptionnext-deployed')


def cells():
    """All comparisons, by suite: what a user would pick, the backbone alone, parts, growth, one thread."""
    found = []
    for dtype in ('fp32', 'bf16'):
        found += [
            Cell('main', 'train', dtype, 2, 512,
                 of(5, *MAIN, 'as-shipped', 'smp-inceptionnext') | of(1, *OTHERS[1:], *PLAIN)),
            Cell('main', 'infer', dtype, 1, 512, of(5, *MAIN, 'as-shipped', 'smp-inceptionnext') | of(
                2, *OTHERS[1:], *PLAIN, *DEPLOY)),
            Cell('backbone', 'train', dtype, 2, 512, of(3, *MAIN) | of(2, *PLAIN), 'backbone'),
            Cell('backbone', 'infer', dtype, 1, 512, of(5, *MAIN) | of(2, *PLAIN, *DEPLOY), 'backbone')]
    found += [Cell('small', 'train', 'fp32', 8, 256, of(5, 'small', 'small-plain'))]
    for mode, batch_size in (('train', 2), ('infer', 1)):
        parts = [f'{word}{part}' for word in ('only ', 'without ') for part in PARTS[mode]]
        found += [Cell('parts', mode, 'fp32', batch_size, 512, of(2, 'inceptionnext-plain', 'inceptionnext', *parts),
                       layouts=('nhwc', ))]
    found += [Cell('growth', 'infer', 'fp32', 1, size, of(2, *MAIN)) for size in (256, 768, 1024)]
    found += [Cell('growth', 'train', 'fp32', batch_size, 256, of(2, *MAIN)) for batch_size in (2, 4, 8)]
    found += [Cell('threads', mode, 'fp32', batch_size, size, of(2, *MAIN), threads=1)
              for mode, batch_size, size in (('infer', 1, 512), ('train', 2, 256))]
    return found
