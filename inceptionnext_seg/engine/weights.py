"""Every file of weights that mmengine reads, it reads through this package, which never unpickles freely.

mmengine loads by scheme, and so do MMSegmentation and MMPretrain: ``load_from``, ``resume``,
``init_cfg=dict(type='Pretrained')`` of any module, ``init_model``. Its own loaders unpickle whatever a file asks for
where the safe way fails. Importing this module registers others for every scheme, so that it holds under any tool whose
config imports ``inceptionnext_seg.engine``.

What they return lies on the CPU whatever ``map_location`` says: all callers copy it into modules and optimizers.
"""
from mmengine.runner import checkpoint as mm

from ..errors import UserError
from ..models.checkpoint import WAYS_ON, read_checkpoint, require_file


def load_from_local(filename, map_location=None):
    """A checkpoint at a path, a URL, or ``timm://NAME``.

    Raises:
        UserError: It cannot be had or read, would run code, or has weights that are not finite.
    """
    checkpoint = read_checkpoint(filename)
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        # mmengine's resuming runs this text as a config file, that is as Python, to read `gpu_ids` from it.
        meta.pop('config', None)
    return checkpoint


def load_from_http(filename, map_location=None):
    """A checkpoint behind a URL; as :func:`load_from_local`, but for its name, which mmengine logs."""
    return load_from_local(filename)


def load_from_torchvision(filename, map_location=None):
    """``torchvision://NAME``: a model of torchvision."""
    return load_from_local(address_of(filename, mm.get_torchvision_models()))


def load_from_openmmlab(filename, map_location=None):
    """``open-mmlab://NAME``: a backbone of OpenMMLab's zoo."""
    name = filename.partition('://')[2]
    return load_from_local(address_of(mm.get_deprecated_model_names().get(name, name), mm.get_external_models()))


def load_from_mmcls(filename, map_location=None):
    """``mmcls://NAME``: the backbone of a classifier of OpenMMLab's."""
    return mm._process_mmcls_checkpoint(load_from_local(address_of(filename, mm.get_mmcls_models())))


def load_from_storage(filename, map_location=None):
    """Schemes of storage whose clients this package does not know.

    Raises:
        UserError: Always.
    """
    raise UserError(f'the weights {filename} cannot be had: their scheme is not supported. Expected: a path, '
                    'http(s)://, timm://, torchvision://, open-mmlab:// or mmcls://. Next: download it, '
                    'and give its path.')


def address_of(filename, addresses):
    name = filename.rpartition('://')[2]
    if name not in addresses:
        raise UserError(f'the weights {filename} are unknown to mmengine. Next: check the name, or give a path or URL.')
    return addresses[name]


SCHEMES = {
    '': load_from_local, 'timm://': load_from_http, 'http://': load_from_http, 'https://': load_from_http,
    'torchvision://': load_from_torchvision, 'modelzoo://': load_from_torchvision,
    'open-mmlab://': load_from_openmmlab, 'openmmlab://': load_from_openmmlab, 'mmcls://': load_from_mmcls}


def require_weights(settings):
    """Look for the files of pretrained weights that a model's config names, before it is built; nothing is downloaded.

    Raises:
        UserError: One is not there.
    """
    if isinstance(settings, list | tuple):
        for part in settings:
            require_weights(part)
    elif isinstance(settings, dict):
        source = settings.get('checkpoint')
        if settings.get('type') == 'Pretrained' and isinstance(source, str):
            require_local(source, WAYS_ON)
        require_weights(list(settings.values()))


def require_local(source, ways=''):
    """Raises UserError where a source of weights is a path, and no file is there; ``ways`` goes on from there."""
    if source and '://' not in str(source):
        try:
            require_file(source)
        except UserError as error:
            raise UserError(f'{error} {ways}'.rstrip()) from None


def register():
    """Register the loaders above for every scheme that mmengine knows, in place of its own."""
    for prefix in {*mm.CheckpointLoader._schemes, *SCHEMES}:
        mm.CheckpointLoader.register_scheme(prefix, SCHEMES.get(prefix, load_from_storage), force=True)


register()
