# The network of the inception arm once more, its initial weights drawn a second time from the same distributions:
# timm's for the backbone, mmcv's for the heads' convolutions, mmseg's for the last of each. What differs is chance.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(
    backbone=dict(init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.02, bias=0.)),
    decode_head=dict(init_cfg=[
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Normal', std=0.01, override=dict(name='conv_seg'))
    ]),
    auxiliary_head=dict(init_cfg=[
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Normal', std=0.01, override=dict(name='conv_seg'))
    ]))
