# InceptionNeXt-T on the embedded set with Semantic FPN.
_base_ = ['fpn_convnext_t_mini.py']

model = dict(backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')))
