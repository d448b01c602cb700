# What the ablations of InceptionNeXt-T on ADE20K are compared with: trained from scratch, as they are, since ImageNet
# weights were released for the whole network alone. Where the ablations have ImageNet weights of their own, give all of
# them theirs: init_cfg=dict(type='Pretrained', checkpoint=PATH). The token mixer is the default, spelled out so that
# --cfg-options model.backbone.token_mixer.branch_ratio=0.25 has a place.
_base_ = ['../upernet_inceptionnext_t_ade20k.py']

model = dict(
    backbone=dict(
        init_cfg=None, token_mixer=dict(type='InceptionDWConv2d', band_kernel_size=11, branch_ratio=1 / 8)))
