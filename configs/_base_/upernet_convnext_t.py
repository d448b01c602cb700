# ConvNeXt-T under UperNet, with MMSegmentation's drop path and ImageNet-1k weights, those without EMA
# (configs/convnext/convnext-tiny_upernet_*.py).
_base_ = ['upernet.py']

model = dict(
    backbone=dict(
        type='ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')))
