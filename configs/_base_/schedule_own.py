# From scratch to a good model in the time there is.
# - The length is that of `minutes`, training and validations together: TimeBudgetHook measures the first iterations and
#   fits the schedule. max_iters and the ends below are what runs without it (minutes=None).
# - AdamW 2e-3 for 8 images: from scratch, in few iterations, a high rate for long is what counts. No learning-rate
#   decay over the stages, which protects weights that are good already. Linear warm-up, poly decay to 0 with power 0.4
#   in place of DeepLab's 0.9: half of the rate is left after four fifths of the run.
# - Averaged weights (mmengine's EMAHook) are validated and saved: noise of a high rate and a small batch averages out.
#   Horizon 500 iterations, shorter at first (gamma); BatchNorm's statistics are averaged with them.
# - Early stopping: ten validations without a gain of 0.1 points, half of a run that has time for twenty. The best
#   checkpoint is kept.
_base_ = ['runtime.py']

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='MetaNeXtDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, decay_type='stage_wise', num_layers=6))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=0.4, eta_min=0.0, by_epoch=False, begin=100, end=6000)
]
train_cfg = dict(
    type='TotalBatchTrainLoop', total_batch_size=8, micro_batch_size=None, max_iters=6000, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=True, base_batch_size=8)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=300, max_keep_ckpts=1, save_best='mIoU', rule='greater'))
custom_hooks = [
    dict(type='ThroughputHook'),
    dict(type='MetricsFileHook'),
    dict(type='TimeBudgetHook', minutes=60),
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.002, gamma=50, update_buffers=True),
    dict(type='EarlyStoppingHook', monitor='mIoU', rule='greater', min_delta=0.1, patience=10),
    dict(type='ReportHook')
]
