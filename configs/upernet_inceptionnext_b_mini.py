# InceptionNeXt-B on the embedded set, under the small UperNet and the recipe of the atto variant.
_base_ = ['upernet_convnext_b_mini.py']

model = dict(backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')))
