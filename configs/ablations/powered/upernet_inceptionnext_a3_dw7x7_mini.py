# ConvNeXt's token mixer, a depthwise 7×7 convolution of all channels, under BatchNorm.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='DWConv2d', kernel_size=7)))
