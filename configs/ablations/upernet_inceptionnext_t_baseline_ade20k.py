# What the ablations of InceptionNeXt-T on ADE20K are compared with: trained from scratch, as they are, since ImageNet
# weights were released for the whole network alone. So the recipe is one for training from scratch, as in
# schedule_own.py, and not that of fine-tuning: layer scale 1 where 1e-6 would leave the blocks all but idle, ten times
# the rate, and the same one for all stages. Nothing of it was tuned at this scale.
# Where the ablations have ImageNet weights of their own, give all of them theirs, init_cfg=dict(type='Pretrained',
# checkpoint=PATH), with optim_wrapper.optimizer.lr=1e-4 and optim_wrapper.paramwise_cfg.decay_rate=0.9. The token mixer
# is the default, spelled out so that --cfg-options model.backbone.token_mixer.branch_ratio=0.25 has a place.
_base_ = ['../upernet_inceptionnext_t_ade20k.py']

model = dict(
    backbone=dict(
        init_cfg=None,
        layer_scale_init_value=1.0,
        token_mixer=dict(type='InceptionDWConv2d', band_kernel_size=11, branch_ratio=1 / 8)))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(decay_rate=1.0))
