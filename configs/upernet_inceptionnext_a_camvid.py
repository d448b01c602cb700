# One's own images, with CamVid as the example: docs/own_images.md, "By hand", shows the lines that adapt it.
_base_ = ['upernet_convnext_a_camvid.py']

model = dict(backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')))
