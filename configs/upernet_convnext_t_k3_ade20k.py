# ConvNeXt-T with 3×3 kernels. Weights: see upernet_convnext_t_k5_ade20k.py.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        token_mixer=dict(kernel_size=3),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/convnext_tiny_k3.pth')))
