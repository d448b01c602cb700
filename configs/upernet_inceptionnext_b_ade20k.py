# InceptionNeXt-B under the recipe of its baseline; drop path 0.4 in the paper too (arXiv:2303.16900, appendix A.2).
_base_ = ['upernet_convnext_b_ade20k.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        drop_path_rate=0.4,
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_base.pth')))
