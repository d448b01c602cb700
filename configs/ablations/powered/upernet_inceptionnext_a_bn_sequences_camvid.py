# InceptionNeXt-A on CamVid for python -m studies.camvid_sequences, which gives each data loader the sequences that it
# has. The recipe is that of the arms on drawn scenes, shorter, with the cross-entropy in validation.
_base_ = ['../../_base_/upernet_a.py', '../../_base_/camvid.py', '../../_base_/schedule_powered.py']

val_evaluator = [dict(type='RecordingIoUMetric', iou_metrics=['mIoU']), dict(type='CrossEntropyMetric')]
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=dict(size=(256, 256)),
    backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
    test_cfg=dict(mode='whole', keep_logits=True))
train_cfg = dict(max_iters=450, val_begin=350)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=100, end=450)
]
