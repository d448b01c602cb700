"""Small models with random weights whose output depends on every layer."""
import torch
from torch.nn.modules.batchnorm import _BatchNorm

SHALLOW = dict(backbone=dict(arch=dict(depths=[1, 1, 2, 1], dims=[40, 80, 160, 320])))
SMALL = {f'{head}_{family}_a': dict(SHALLOW, num_classes=7, accelerate=False, **settings)
         for family in ('inceptionnext', 'convnext')
         for head, settings in (('upernet', dict(decode_head=dict(channels=16))), ('fpn', {}))}


def sensitive(model):
    """``model`` in eval mode, its norms' statistics those of two random images, its logits of order one."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith('gamma'):
            parameter.data.uniform_(0.2, 0.5)
        elif parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None      # the mean over what follows
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, 128, 160))
    return model.eval()
