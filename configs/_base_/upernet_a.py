# UperNet of 64 channels for the atto backbones: the size that trains on a laptop. The papers have no atto segmentor.
_base_ = ['upernet.py']

model = dict(
    backbone=dict(
        type='ConvNeXt',
        arch='atto',
        # From scratch: 1e-6 would leave the blocks all but idle in so few iterations; 1 is MMSegmentation's own value.
        layer_scale_init_value=1.0,
        drop_path_rate=0.0),
    decode_head=dict(in_channels=[40, 80, 160, 320], channels=64),
    auxiliary_head=dict(in_channels=160, channels=32))
