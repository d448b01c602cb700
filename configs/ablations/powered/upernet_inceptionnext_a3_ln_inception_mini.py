# LayerNorm, with ConvNeXt's eps, for every BatchNorm of the backbone, those of the output stages too.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(
    norm_cfg=dict(type='LN2d', eps=1e-6), out_norm_cfg=dict(type='LN2d', eps=1e-6)))
