"""Reading weights: untrusted files, every ConvNeXt naming, and loading that leaves nothing out unsaid.

Checkpoints are untrusted input. All are read by :func:`.untrusted.read_untrusted`, and never unpickled freely.
"""
import hashlib
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple
from urllib.parse import urlsplit

import huggingface_hub
import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from .._fast import plain_type
from ..errors import UserError
from .folded import Folded, refuse_unfused
from .untrusted import Refused, read_untrusted
from .weight_names import to_metanext_names

# The classifier of ImageNet weights: `head` everywhere, with facebookresearch/ConvNeXt's norm after the pooling.
CLASSIFIER = re.compile(r'^(?:head|norm)\.')
OUTPUT_NORM = re.compile(r'^norm\d+\.')

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

WAYS_ON = ('To go on without pretrained weights: --cfg-options model.backbone.init_cfg=None, with a recipe for '
           'training from scratch (docs/ade20k.md). To use a file that you have downloaded elsewhere: --cfg-options '
           'model.backbone.init_cfg.checkpoint=PATH (.pth or .safetensors).')


def first_line(text):
    return text.strip().partition('\n')[0].rstrip('.') or 'no detail'


def not_finite(state_dict):
    """The names of the tensors in a state dict that hold NaN or infinity; masks of attention hold it by design."""
    return [name for name, value in state_dict.items()
            if isinstance(value, torch.Tensor) and value.dtype in FLOATS and value.layout == torch.strided
            and value.numel() and not str(name).endswith('mask')
            # NaN if there is one; needs no memory.
            and not all(bound.isfinite() for bound in value.aminmax())]


def refuse_not_finite(checkpoint, path):
    """Raise a UserError where the weights of a checkpoint, of the model or its average, hold NaN or infinity."""
    if not isinstance(checkpoint, dict):
        return
    parts = [checkpoint, *(checkpoint.get(name) for name in ('state_dict', 'model', 'ema_state_dict'))]
    wrong = [name for part in parts if isinstance(part, dict) for name in not_finite(part)]
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise UserError(f'checkpoint {path} has weights that are not finite: {", ".join(map(str, wrong[:5]))}{more}. '
                        'Expected: finite numbers. Its training diverged; next: take an earlier checkpoint.')


def read_file(path):
    """The content of a ``.pth`` or ``.safetensors`` file: tensors on the CPU, numbers, text, mmengine's log buffers.

    Raises:
        UserError: The file is missing, cut short, not a checkpoint, announces more than it holds, would run code when
            unpickled, or has weights that are not finite.
    """
    checkpoint = read_object(path)
    refuse_not_finite(checkpoint, path)
    return checkpoint


def require_file(path):
    """The path of a checkpoint that is there.

    Raises:
        UserError: It is not.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'checkpoint not found: {path.absolute()}. Give the path of a .pth or .safetensors file.')
    return path


def read_object(path):
    path = require_file(path)
    try:
        return read_untrusted(path)
    except UnpicklingError as error:
        # torch's own message advises to load it all the same, code and all.
        asked = re.search(r'GLOBAL (\S+)', str(error))
        ours = next((e for e in (error, error.__context__) if isinstance(e, Refused)), None)
        asked = f' (it asks for {asked[1]})' if asked else f' ({ours})' if ours else ''
        raise UserError(f'checkpoint {path} holds more than weights{asked}, or is no checkpoint at all, and was not '
                        'unpickled. Expected: tensors, numbers and text, as torch.save writes them from a state dict. '
                        'If you trust it, save its state dict again, alone.') from error
    # A damaged file fails in torch with whatever it came upon: IndexError, AttributeError, UnicodeDecodeError, ...
    except Exception as error:
        raise UserError(f'checkpoint {path} ({path.stat().st_size} bytes) cannot be read, it may be cut short: '
                        f'{type(error).__name__}: {first_line(str(error))}. Download or copy it again.') from error


def location_of(source, cache_dir=None):
    """The URL of ``timm://NAME`` or ``hf-hub://OWNER/NAME[@REVISION]`` on the Hugging Face hub, or its path where the
    hub's cache has it; others stay."""
    scheme, _, name = source.partition('://')
    if scheme not in ('timm', 'hf-hub'):
        return source
    repository, _, revision = (f'timm/{name}' if scheme == 'timm' else name).partition('@')
    file = dict(repo_id=repository, filename='model.safetensors', revision=revision or None)
    cached = huggingface_hub.try_to_load_from_cache(**file, cache_dir=cache_dir)
    return cached if isinstance(cached, str) else huggingface_hub.hf_hub_url(**file)


def fetch(location, cache_dir=None):
    """The object at a path or behind a URL, downloaded once; a download that cannot be read is not kept."""
    if '://' not in location:
        return read_file(location)
    # By URL, not by name alone: on the Hugging Face hub every model's file has the same name.
    name = f'{hashlib.sha256(location.encode()).hexdigest()[:8]}-{Path(urlsplit(location).path).name}'
    path = Path(cache_dir or Path(torch.hub.get_dir()) / 'checkpoints') / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(location, str(path), progress=get_rank() == 0)
    try:
        return read_file(path)
    except UserError:
        path.unlink(missing_ok=True)
        raise


def read_checkpoint(source, cache_dir=None):
    """The object at ``source``: a path, a URL, ``timm://NAME``, NAME being a model on the hub's timm page, or
    ``hf-hub://OWNER/NAME[@REVISION]``, whose ``model.safetensors`` it is.

    One process of a run downloads, the others find its file, in ``cache_dir`` in place of the hub's and torch's caches.

    Raises:
        UserError: It cannot be had or read. The message says what was tried and how to go on.
    """
    source = str(source)
    if '://' not in source:
        return read_file(source)
    tried = source
    try:
        location = location_of(source, cache_dir)
        if location != source:
            tried = f'{source} ({location})'
        if get_rank() == 0:
            checkpoint = fetch(location, cache_dir)
        barrier()
        return checkpoint if get_rank() == 0 else fetch(location, cache_dir)
    # Behind one line are urllib, the network and the disk, each with errors of its own.
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {first_line(str(error))}.'
        raise UserError(f'cannot get the weights {tried}: {reason} {WAYS_ON}') from error


def state_dict_of(checkpoint, source, prefix=None):
    """The tensors of a checkpoint: unwrapped from 'state_dict' or 'model', without 'module.', and below ``prefix``."""
    for wrapper in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(wrapper), dict):
            checkpoint = checkpoint[wrapper]
    if not isinstance(checkpoint, dict) or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in checkpoint.items()):
        found = sorted(map(str, checkpoint))[:5] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise UserError(f'checkpoint {source} holds no state dict (found {found}); expected: a dict of tensors, or one '
                        "under 'state_dict' or 'model'.")
    state_dict = {key.removeprefix('module.'): value for key, value in checkpoint.items()}
    if prefix is None and any(key.startswith('backbone.') for key in state_dict):
        prefix = 'backbone.'
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        found = sorted(state_dict)[:3]
        state_dict = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if not state_dict:
            raise UserError(f'checkpoint {source} has no key under {prefix!r}; its keys begin with {found}.')
    return state_dict


class Differences(NamedTuple):
    """Names of tensors in which a checkpoint differs from a model.

    Attributes:
        missing, unexpected (list[str]): Of the model alone, and of the checkpoint alone.
        misshapen (list[str]): Of both, with different shapes.
    """
    missing: list
    unexpected: list
    misshapen: list

    def describe(self, own, state_dict, shown=None):
        """``missing (1): a; unexpected (2): b, c``, at most ``shown`` of each; '' where there are none."""
        shapes = [f'{name}: {tuple(state_dict[name].shape)} in the checkpoint, {tuple(own[name].shape)} in the model'
                  for name in self.misshapen]
        return '; '.join(f'{title} ({len(names)}): {listed(names, shown)}' for title, names in (
            ('missing', self.missing), ('unexpected', self.unexpected), ('of another shape', shapes)) if names)


def compare(own, state_dict):
    """The :class:`Differences` of a model's tensors and a checkpoint's, two dicts by name.

    Counters may be missing: old checkpoints have none, and nothing is computed from them.
    """
    return Differences(
        [name for name in own if name not in state_dict and not name.endswith('num_batches_tracked')],
        [name for name in state_dict if name not in own],
        [name for name in own if name in state_dict and state_dict[name].shape != own[name].shape])


def listed(names, shown=None):
    """The first names, and how many more there are."""
    more = len(names) - len(names[:shown])
    return ', '.join([*names[:shown], *([f'and {more} more'] if more else [])])


def load_strictly(module, state_dict, source, may_be_missing=None):
    """Load ``state_dict`` into ``module``; only keys that match the pattern ``may_be_missing`` may be left out.

    Raises:
        UserError: Lists every missing and unexpected key and every shape that differs; nothing was loaded.
    """
    own = module.state_dict()
    if any(isinstance(part, Folded) for part in module.modules()):
        refuse_unfused([key for key in state_dict if key not in own and key.endswith(('running_mean', 'gamma'))])
    found = compare(own, state_dict)
    if may_be_missing:
        found = found._replace(missing=[key for key in found.missing if not may_be_missing.search(key)])
    if any(found):
        raise UserError(f'{source} does not fit {plain_type(module).__name__}. Expected: the same keys and shapes. '
                        f'Found {found.describe(own, state_dict)}. Next: check that `arch`, `in_channels` and the '
                        'number of classes are those of the checkpoint.')
    module.load_state_dict(state_dict, strict=False)


def load_pretrained(backbone, source, prefix=None, cache_dir=None):
    """Load ImageNet or segmentation weights into a MetaNeXt backbone, strictly.

    The classifier is left out by name and output norms may be new; any other key that is missing, unexpected or of
    another shape is an error.

    Args:
        backbone (MetaNeXt): Where to load.
        source (str | dict): A path (.pth, .safetensors), a URL, ``timm://inception_next_tiny.sail_in1k``,
            ``hf-hub://OWNER/NAME[@REVISION]``, or a state dict.
        prefix (str | None): Of the backbone in the checkpoint; ``backbone.`` is found by itself.
        cache_dir (str | Path | None): Where downloads are kept.

    Raises:
        UserError: It cannot be read, or does not fit.
    """
    checkpoint, source = (source, 'the state dict') if isinstance(source, dict) else (
        read_checkpoint(source, cache_dir), source)
    state_dict = state_dict_of(checkpoint, source, prefix)
    to_metanext_names(state_dict)
    own = backbone.state_dict()
    state_dict = {
        key: value for key, value in state_dict.items()
        if not CLASSIFIER.match(key) and not (OUTPUT_NORM.match(key) and key not in own)}
    load_strictly(backbone, state_dict, source, may_be_missing=OUTPUT_NORM)
    new = sorted({key.split('.')[0] for key in own if OUTPUT_NORM.match(key) and key not in state_dict})
    print_log(f'Loaded {len(state_dict)} tensors from {source}; new: {", ".join(new) or "none"}', 'current')


def load_model(model, source):
    """Load a whole segmentor, of ours or of OpenMMLab's ConvNeXt UperNets, strictly. Returns the checkpoint's ``meta``.

    Raises:
        UserError: It cannot be read, or does not fit.
    """
    checkpoint = read_checkpoint(source)
    state_dict = state_dict_of(checkpoint, source, prefix='')
    if any(key.startswith('backbone.') for key in state_dict):
        to_metanext_names(state_dict, 'backbone.')
    load_strictly(model, state_dict, source)
    return checkpoint.get('meta', {}) if isinstance(checkpoint, dict) else {}
