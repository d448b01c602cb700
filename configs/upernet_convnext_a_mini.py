# The baseline of upernet_inceptionnext_a_mini.py.
_base_ = ['_base_/upernet_a.py', '_base_/mini.py', '_base_/schedule_small.py']

model = dict(
    data_preprocessor=dict(size=(128, 128)), decode_head=dict(num_classes=18), auxiliary_head=dict(num_classes=18))
# Crops of 128 leave time for twice the iterations of schedule_small.py in some four minutes on two CPU cores.
train_cfg = dict(max_iters=600, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=30),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=30, end=600)
]
default_hooks = dict(checkpoint=dict(interval=300))
