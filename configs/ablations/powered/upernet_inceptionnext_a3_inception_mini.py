# What the arms of docs/studies/ablations.md are compared with: the first three stages of InceptionNeXt-A, strides 4, 8
# and 16. In crops of 160×160 their maps are 40, 20 and 10 pixels wide, all wider than the bands of 9; the fourth
# stage's would be 5 wide, and is left out.
# - Every crop is a whole one: images are not made smaller than they are.
# - Validation has the cross-entropy, for which full logits are kept.
_base_ = ['../../_base_/upernet_a.py', '../../_base_/mini.py', '../../_base_/schedule_powered.py']

crop_size = (160, 160)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(224, 160), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = [dict(type='RecordingIoUMetric', iou_metrics=['mIoU']), dict(type='CrossEntropyMetric')]
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        type='InceptionNeXt',
        arch=dict(_delete_=True, depths=(2, 2, 6), dims=(40, 80, 160)),
        out_indices=(0, 1, 2),
        out_norm_cfg=dict(type='BN'),
        token_mixer=dict(type='InceptionDWConv2d', band_kernel_size=9, branch_ratio=1 / 4)),
    decode_head=dict(in_channels=[40, 80, 160], in_index=[0, 1, 2], num_classes=18),
    auxiliary_head=dict(num_classes=18),
    test_cfg=dict(mode='whole', keep_logits=True))
