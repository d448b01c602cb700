"""Whether the parts of a built segmentor fit each other and the data, by what each says of itself."""
import torch
import torch.nn as nn

from ..errors import UserError
from ..models.layers import input_channels
from ..models.metanext import MetaNeXt


def check_model(model):
    """Compare backbone, heads and losses of a segmentor before it sees an image.

    Attributes that a model from elsewhere does not have are not compared.

    Raises:
        UserError: A head takes other maps than the backbone gives, or other channels; a loss has weights for another
            number of classes; the backbone takes other channels than images have. Names the setting, with both values.
    """
    channels = channels_of(model)
    for name, head in heads_of(model):
        if channels is not None:
            check_maps(f'model.{name}', head, channels)
        check_class_weights(f'model.{name}', head)


def heads_of(model):
    """``(path, head)`` of the decode and auxiliary heads; those of a cascade have their index."""
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f'{name}.{i}', part) for i, part in enumerate(head))
        elif head is not None:
            yield name, head


def channels_of(model):
    """Channels of the maps that the heads get, or None where they are not known without an image.

    Raises:
        UserError: The backbone takes other channels than the images have.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MetaNeXt) or getattr(model, 'neck', None) is not None:
        return channels_by_running(model)
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    taken = backbone.stem[0].in_channels
    if isinstance(mean, torch.Tensor) and mean.numel() not in (1, taken):
        raise UserError(f'model.backbone.in_channels is {taken}, and images have {mean.numel()}, by '
                        'model.data_preprocessor.mean. Expected: the same. Next: --cfg-options '
                        f'model.backbone.in_channels={mean.numel()}.')
    size = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    least = 4 * 2**max(backbone.out_indices)
    if isinstance(size, tuple | list) and min(size) < least:
        raise UserError('model.data_preprocessor.size, to which training crops are padded, is '
                        f'{tuple(size)}; expected: at least {least} on each side, the stride of stage '
                        f'{max(backbone.out_indices)}. Next: larger crops, or model.backbone.out_indices '
                        'without the last stages.')
    return [backbone.dims[i] for i in backbone.out_indices]


@torch.no_grad()
def channels_by_running(model):
    """As :func:`channels_of`, of a black image of 64×64 pixels; None where the model does not take that."""
    parts = [part for part in (getattr(model, 'backbone', None), getattr(model, 'neck', None)) if part is not None]
    in_channels = input_channels(model)
    if not parts or in_channels is None or not hasattr(model, 'extract_feat'):
        return None
    training = [module for module in model.modules() if module.training]
    try:
        for part in parts:
            part.eval()
        maps = model.extract_feat(next(model.parameters()).new_zeros(1, in_channels, 64, 64))
        return [feature.shape[1] for feature in maps]
    except Exception:  # any: a model from elsewhere may want another size, a list, or the images' names
        return None
    finally:
        for module in training:
            module.training = True


def check_maps(path, head, channels):
    index, taken = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
    indices = [index] if isinstance(index, int) else index
    if not isinstance(indices, list | tuple):
        return
    count = len(channels)
    wrong = [i for i in indices if not -count <= i < count]
    if wrong:
        raise UserError(f'{path}.in_index is {index}, and the backbone gives {count} map{"s" * (count > 1)}, by '
                        f'model.backbone.out_indices. Expected: from 0 to {count - 1}. Next: correct one of the two.')
    given = [channels[i] for i in indices]
    transform = getattr(head, 'input_transform', None)
    expected = sum(given) if transform == 'resize_concat' else given if transform == 'multiple_select' else given[0]
    if (list(taken) if isinstance(taken, list | tuple) else taken) != expected:
        raise UserError(f'{path}.in_channels is {taken}, and the backbone gives maps of {channels} channels, of which '
                        f'in_index {index} takes {given}. Expected: {expected}. Next: --cfg-options '
                        f'"{path}.in_channels={given if transform == "resize_concat" else expected}".')


def check_class_weights(path, head):
    losses = getattr(head, 'loss_decode', None)
    classes = getattr(head, 'out_channels', getattr(head, 'num_classes', None))
    for i, loss in enumerate(losses if isinstance(losses, nn.ModuleList) else [losses]):
        weights = getattr(loss, 'class_weight', None)
        if weights is None or classes is None:
            continue
        name = f'{path}.loss_decode{f".{i}" if isinstance(losses, nn.ModuleList) else ""}.class_weight'
        values = torch.as_tensor(weights).flatten()
        if len(values) != classes:
            raise UserError(f'{name} has {len(values)} values; expected: {classes}, one for each class.')
        if not values.double().isfinite().all() or (values < 0).any() or not (values > 0).any():
            raise UserError(f'{name} is {list(weights)}; expected: finite numbers, 0 or more, not all 0.')
