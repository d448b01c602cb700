# The papers have no atto segmentor. This one is T's: UperNet of 512 channels under the same recipe, but for the drop
# path, 0.1 as InceptionNeXt-A on ImageNet (arXiv:2303.16900, appendix A.1). The weights are timm's.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(arch='atto', drop_path_rate=0.1, init_cfg=dict(checkpoint='timm://convnext_atto.d2_in1k')),
    decode_head=dict(in_channels=[40, 80, 160, 320]),
    auxiliary_head=dict(in_channels=160))
