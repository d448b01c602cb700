# Crops of 128 leave time for twice the iterations of schedule_small.py: for an atto backbone and a UperNet of 64
# channels a few minutes on two CPU cores.
_base_ = ['schedule_small.py']

train_cfg = dict(max_iters=600, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=30),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=30, end=600)
]
default_hooks = dict(checkpoint=dict(interval=300))
