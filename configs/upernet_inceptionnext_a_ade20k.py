# The papers have no atto segmentor; upernet_convnext_a_ade20k.py says how this one is made.
_base_ = ['upernet_convnext_a_ade20k.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        drop_path_rate=0.1,
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_atto.pth')))
