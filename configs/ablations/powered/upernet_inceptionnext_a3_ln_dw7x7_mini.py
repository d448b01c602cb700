# ConvNeXt's pair: its depthwise 7×7 convolution of all channels, and LayerNorm for every BatchNorm of the backbone.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(
    token_mixer=dict(_delete_=True, type='DWConv2d', kernel_size=7),
    norm_cfg=dict(type='LN2d', eps=1e-6), out_norm_cfg=dict(type='LN2d', eps=1e-6)))
