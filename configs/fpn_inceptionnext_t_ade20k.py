# InceptionNeXt-T under Semantic FPN, drop path 0.1 (arXiv:2303.16900, appendix A.2). Each output stage has a new
# BatchNorm, as under UperNet.
_base_ = ['fpn_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        drop_path_rate=0.1,
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth')))
