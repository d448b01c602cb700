# ConvNeXt-A as it is, with LayerNorm.
_base_ = ['upernet_inceptionnext_a_bn_sequences_camvid.py']

model = dict(
    backbone=dict(
        type='ConvNeXt',
        norm_cfg=dict(type='LN2d', eps=1e-6), out_norm_cfg=dict(type='LN2d', eps=1e-6)))
