# InceptionNeXt-A on ImageNet-1k: the settings of scripts/inceptionnext/train_inceptionnext_atto.sh in
# sail-sg/inceptionnext: 1280 images an iteration on 4 GPUs, AdamW 1e-3, 5 epochs of warm-up from 5e-7, cosine decay to
# 5e-7 at 600 epochs, RandAugment rand-m5-inc1-mstd101 (the magnitude drawn uniformly), mixup 0.2, random erasing 0.1,
# drop path 0.1; the rest as for InceptionNeXt-T.
_base_ = ['inceptionnext_t_imagenet.py']

model = dict(
    backbone=dict(arch='atto'),
    head=dict(in_channels=320),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=5,
        magnitude_std='inf',
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(
        type='RandomErasing',
        erase_prob=0.1,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395]),
    dict(type='PackInputs')
]
train_dataloader = dict(batch_size=320, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=1e-3), accumulative_counts=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-7 / 1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=5e-7, by_epoch=True, begin=5, end=600, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=610)
auto_scale_lr = dict(base_batch_size=1280)
