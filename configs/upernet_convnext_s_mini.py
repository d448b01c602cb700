# ConvNeXt-S on the embedded set, under the small UperNet and the recipe of the atto variant.
_base_ = ['upernet_convnext_a_mini.py']

model = dict(
    backbone=dict(arch='small'),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
