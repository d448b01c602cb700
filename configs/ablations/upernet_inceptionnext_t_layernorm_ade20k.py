# LayerNorm, with the eps of ConvNeXt, for every BatchNorm of stem, downsampling and blocks. The norms on the output
# stages, new in segmentation, stay.
_base_ = ['upernet_inceptionnext_t_baseline_ade20k.py']

model = dict(backbone=dict(norm_cfg=dict(type='LN2d', eps=1e-6)))
