# A depthwise 3×3 convolution of all channels, no bands and no identity: does a small square do where every channel has
# one?
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(_delete_=True, type='DWConv2d', kernel_size=3)))
