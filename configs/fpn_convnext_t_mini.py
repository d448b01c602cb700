# ConvNeXt-T on the embedded set with Semantic FPN.
_base_ = ['fpn_convnext_a_mini.py']

model = dict(backbone=dict(arch='tiny'), neck=dict(in_channels=[96, 192, 384, 768]))
