# One's own images, with CamVid as the example: README, "Your own images", shows the lines that adapt it.
_base_ = ['upernet_convnext_a_camvid.py']

model = dict(backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')))
