# For a small data set and training from scratch: a few hundred iterations of 8 images, a high rate with a short
# warm-up, and no learning-rate decay over the stages, which is for pretrained weights.
_base_ = ['runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='MetaNeXtDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, decay_type='stage_wise', num_layers=6))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=30),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=30, end=300)
]
train_cfg = dict(
    type='TotalBatchTrainLoop', total_batch_size=8, micro_batch_size=None, max_iters=300, val_interval=150)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=True, base_batch_size=8)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=150, max_keep_ckpts=2))
