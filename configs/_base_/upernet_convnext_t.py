# ConvNeXt-T under UperNet, with MMSegmentation's drop path (configs/convnext/convnext-tiny_upernet_*.py).
_base_ = ['upernet.py']

model = dict(
    backbone=dict(
        type='ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth')))
