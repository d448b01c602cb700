# ConvNeXt-A with InceptionNeXt's BatchNorm for every LayerNorm of the backbone, those of the output stages too.
_base_ = ['upernet_inceptionnext_a_bn_sequences_camvid.py']

model = dict(backbone=dict(type='ConvNeXt', norm_cfg=dict(type='BN'), out_norm_cfg=dict(type='BN')))
