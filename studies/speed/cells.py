"""What is compared, at which settings, and in which order."""
import dataclasses
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
        compile (bool): Whether torch.compile takes it.
    """
    label: str
    source: str
    layouts: tuple = LAYOUTS
    options: dict | None = None
    compile: bool = False


# Segmentors of other libraries; smp's have no auxiliary head, which saves them a part of a training step.
LIBRARIES = {
    'smp-inceptionnext': lambda: smp('UPerNet', 'tu-inception_next_tiny', decoder_channels=512),
    'smp-convnext': lambda: smp('UPerNet', 'tu-convnext_tiny', decoder_channels=512),
    'hf-convnext': lambda: hugging_face(
        'ConvNextConfig', hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3])}

CANDIDATES = {
    'stock': Candidate('MMSegmentation ConvNeXt-T (stock)', STOCK),
    'as-shipped': Candidate('stock, as shipped', AS_SHIPPED, ('nchw', )),
    'stock-compiled': Candidate('stock, torch.compile', STOCK, ('nchw', ), compile=True),
    'inceptionnext-compiled': Candidate('our InceptionNeXt-T, torch.compile', INCEPTIONNEXT, ('nhwc', ), compile=True),
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
        nhwc (tuple[str]): Candidates that are measured in NHWC alone, in which acceleration lays a network out.
        as_in (str | None): Another cell; each candidate is measured in the layout that is faster there.
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
    nhwc: tuple = ()
    as_in: str | None = None

    @property
    def name(self):
        part = f'{self.suite} ' if self.suite in ('backbone', 'parts', 'small', 'compile') else ''
        threads = '' if self.threads == 2 else f', {self.threads} thread'
        return f'{part}{self.mode} {self.dtype} {self.batch_size}×{self.size}×{self.size}{threads}'

    def layouts_of(self, candidate):
        if candidate in self.nhwc:
            return ('nhwc', )
        return tuple(layout for layout in CANDIDATES[candidate].layouts if layout in self.layouts)

    def setting_of(self, candidate):
        return Setting(self.mode, self.part, self.batch_size, self.size, self.dtype, CANDIDATES[candidate].compile)


def of(processes, *names):
    return dict.fromkeys(names, processes)


MAIN = ('stock', 'convnext', 'inceptionnext')
OURS = MAIN[1:]
PLAIN = ('convnext-plain', 'inceptionnext-plain')
DEPLOY = ('convnext-deployed', 'inceptionnext-deployed')
COMPILED = ('stock', 'stock-compiled', 'inceptionnext', 'inceptionnext-compiled')
# Candidates of whole networks that are measured once the others are.
LATER = ('as-shipped', 'hf-convnext', 'smp-convnext', *PLAIN, 'stock-compiled')


def cells():
    """All comparisons, by suite: what a user would pick, the backbone alone, parts, growth, one thread, compiled."""
    found = []
    for dtype in ('fp32', 'bf16'):
        fp32 = dtype == 'fp32'
        found += [
            Cell('main', 'train', dtype, 2, 512, of(5, *MAIN) | of(4, 'smp-inceptionnext') | of(2, *LATER[:2])
                 | of(1, *LATER[2:5]), nhwc=() if fp32 else OURS),
            Cell('main', 'infer', dtype, 1, 512, of(5, *MAIN) | of(4, 'smp-inceptionnext') | of(3, *DEPLOY) | of(
                2, *LATER[:5]) | of(1, *LATER[5:] if fp32 else ()), nhwc=OURS),
            Cell('backbone', 'train', dtype, 2, 512, of(5 if fp32 else 3, *OURS) | of(3, *PLAIN) | of(1, 'stock'),
                 'backbone'),
            Cell('backbone', 'infer', dtype, 1, 512, of(5 if fp32 else 3, *OURS) | of(3, *PLAIN) | of(1, 'stock'),
                 'backbone')]
    found += [Cell('small', 'train', 'fp32', 8, 256, of(5, 'small', 'small-plain'))]
    for mode, batch_size, size in (('train', 2, 256), ('infer', 1, 512)):
        parts = [f'{word}{part}' for word in ('only ', 'without ') for part in PARTS[mode]]
        found += [Cell('parts', mode, 'fp32', batch_size, size, of(3, 'inceptionnext-plain', 'inceptionnext', *parts),
                       layouts=('nhwc', ))]
    as_in = {cell.mode: cell.name for cell in found if (cell.suite, cell.dtype) == ('main', 'fp32')}
    found += [Cell('growth', 'infer', 'fp32', 1, size, of(2, *MAIN), as_in=as_in['infer']) for size in (256, 768, 1024)]
    found += [Cell('growth', 'train', 'fp32', batch_size, 256, of(2, *MAIN), as_in=as_in['train'])
              for batch_size in (2, 4, 8)]
    found += [Cell('threads', mode, 'fp32', batch_size, size, of(2, *MAIN), threads=1, as_in=as_in[mode])
              for mode, batch_size, size in (('infer', 1, 512), ('train', 2, 256))]
    found += [Cell('compile', mode, 'fp32', batch_size, size, of(2, *COMPILED), nhwc=OURS)
              for mode, batch_size, size in (('infer', 1, 512), ('train', 2, 256))]
    return found


class Stage(NamedTuple):
    """What is measured process by process before the next stage begins.

    Attributes:
        suites (tuple[str]): Of the cells.
        processes (int): At most, of each.
        later (bool): Whether :data:`LATER` of whole networks are among them.
        others (bool): Whether the rest is.
    """
    suites: tuple
    processes: int
    later: bool = False
    others: bool = True

    def cells(self, every):
        """The cells of ``every`` that it has, with its candidates."""
        for cell in every:
            if cell.suite in self.suites:
                names = [name for name in cell.candidates
                         if (self.later if cell.suite == 'main' and name in LATER else self.others)]
                if names:
                    yield dataclasses.replace(cell, candidates={name: cell.candidates[name] for name in names})


# What the documents' sentences rest on comes first, so that a run that is stopped has it whole; the last has the rest.
STAGES = (Stage(('main', 'backbone', 'small'), 5), Stage(('main', ), 1, later=True, others=False),
          Stage(('parts', ), 2), Stage(('growth', 'threads', 'compile'), 1),
          Stage(('parts', 'growth', 'threads', 'compile', 'main'), 5, later=True))
