# The embedded default: InceptionNeXt-A on drawn scenes, trained from scratch in minutes on a CPU, without any download.
_base_ = ['upernet_convnext_a_mini.py']

model = dict(backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')))
