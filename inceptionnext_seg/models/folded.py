"""The placeholder of a layer that :func:`~.fuse.fuse_for_inference` folded into another."""
import torch.nn as nn

from ..errors import UserError


class Folded(nn.Identity):
    """Identity in the place of a folded layer: it refuses to be trained, or to load the weights of that layer.

    Args:
        kind (str): What was here: 'norm', 'layer scale' (with its stochastic depth) or 'dropout'.
    """

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def extra_repr(self):
        return f'instead of {self.kind}'

    def train(self, mode=True):
        """As ``nn.Module.train(False)``.

        Raises:
            UserError: ``mode`` is True.
        """
        if mode:
            raise UserError('this model was fused for inference and cannot be trained: its '
                            f'{self.kind} is no longer there. Expected: the model as it was trained. Next: build it '
                            'anew from its config and load the original checkpoint; to go on with inference, call '
                            'eval().')
        return super().train(mode)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        refuse_unfused([key for key in state_dict if key.startswith(prefix)])
        super()._load_from_state_dict(state_dict, prefix, *args)


def refuse_unfused(keys):
    if keys:
        raise UserError(f'the checkpoint is that of a model before fuse_for_inference (it has {keys[0]}), but this '
                        'model was fused. Expected: the state dict of a fused model. Next: build the model anew from '
                        'its config, load the checkpoint first, and fuse then.')


def refuse_layer_scale(state_dict, prefix, *_):
    """Before a fused block loads."""
    refuse_unfused([key for key in (f'{prefix}gamma', ) if key in state_dict])
