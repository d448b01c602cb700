# ConvNeXt-T with 3×3 kernels on an eighth of the channels, the others pass unchanged. Weights: see
# upernet_convnext_t_k5_ade20k.py.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        token_mixer=dict(type='PartialDWConv2d', kernel_size=3, branch_ratio=1 / 8),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/convnext_tiny_k3_par1_8.pth')))
