# For arms that are compared, docs/studies/ablations.md and camvid_sequences.md: a run's state at iteration n is that of
# a run of n iterations, so that one long run shows every shorter length, and the last validations are of one state of
# training. The rate is constant after the warm-up, and averaged weights are validated and saved: MomentumAnnealingEMA
# with gamma 10 averages over a tenth of the iterations so far at any time (its floor of 5e-4 is reached at 20,000).
_base_ = ['schedule_small.py']

train_cfg = dict(max_iters=2400, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=100, end=2400)
]
default_hooks = dict(checkpoint=dict(interval=50, max_keep_ckpts=1))
custom_hooks = [
    dict(type='ThroughputHook'),
    dict(type='MetricsFileHook'),
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=5e-4, gamma=10, update_buffers=True)
]
