# A depthwise 3×3 convolution of all channels, no bands and no identity.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='DWConv2d', kernel_size=3)))
