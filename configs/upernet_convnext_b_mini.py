# ConvNeXt-B on the embedded set, under the small UperNet and the recipe of the atto variant.
_base_ = ['upernet_convnext_a_mini.py']

model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
