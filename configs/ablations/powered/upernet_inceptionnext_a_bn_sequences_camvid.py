# InceptionNeXt-A on CamVid for python -m studies.camvid_sequences, which gives each data loader the sequences that it
# has: the recipe of the arms on drawn scenes (a constant rate and averaged weights, cross-entropy in validation), so
# that the last three validations are of one state of training.
_base_ = ['../../upernet_inceptionnext_a_camvid.py']

val_evaluator = [dict(type='RecordingIoUMetric', iou_metrics=['mIoU']), dict(type='CrossEntropyMetric')]
test_evaluator = val_evaluator
model = dict(test_cfg=dict(mode='whole', keep_logits=True))
train_cfg = dict(max_iters=400, val_interval=50, val_begin=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=100, end=400)
]
default_hooks = dict(checkpoint=dict(interval=50, max_keep_ckpts=1))
custom_hooks = [
    dict(type='ThroughputHook'),
    dict(type='MetricsFileHook'),
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=5e-4, gamma=10, update_buffers=True)
]
