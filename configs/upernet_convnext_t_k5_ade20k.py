# ConvNeXt-T with 5×5 kernels, for the paper's question of what a smaller kernel costs. The weights are those of
# InceptionNeXt's authors, by the name that the README of sail-sg/inceptionnext links to; its models/convnext.py names
# convnext_tiny_k5_1k_224_ema.pth of the same release.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        token_mixer=dict(kernel_size=5),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/convnext_tiny_k5.pth')))
