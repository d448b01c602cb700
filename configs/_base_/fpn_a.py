# Semantic FPN of 64 channels for the atto backbones, as upernet_a.py: the size that trains on a laptop, from scratch.
_base_ = ['fpn.py']

model = dict(
    backbone=dict(type='ConvNeXt', arch='atto', layer_scale_init_value=1.0, drop_path_rate=0.0),
    neck=dict(in_channels=[40, 80, 160, 320], out_channels=64),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64))
