# InceptionNeXt-T for the study of band and ratio across variants, in as many iterations as the ablations of
# InceptionNeXt-A on the embedded set. The token mixer is the default, spelled out so that
# --cfg-options model.backbone.token_mixer.branch_ratio=0.25 has a place.
_base_ = ['../upernet_inceptionnext_t_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='InceptionDWConv2d', band_kernel_size=11, branch_ratio=1 / 8)))
train_cfg = dict(max_iters=150, val_interval=75)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=15),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=15, end=150)
]
default_hooks = dict(checkpoint=dict(interval=75))
