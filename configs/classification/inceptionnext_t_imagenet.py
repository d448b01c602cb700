# InceptionNeXt-T on ImageNet-1k, for MMPretrain: its tools/train.py and tools/test.py (docs/other_frameworks.md).
# The settings are those of the official code, README.md and the defaults of train.py in sail-sg/inceptionnext: 4096
# images an iteration, AdamW 4e-3, weight decay 0.05 but for norms, biases and layer scales, 20 epochs of warm-up from
# 1e-6, cosine decay to 1e-5 at 300 epochs and 10 epochs at that rate (timm's cooldown), label smoothing 0.1,
# RandAugment rand-m9-mstd0.5-inc1, mixup 0.8, cutmix 1.0, random erasing 0.25, drop path 0.1, fp32, no EMA.
# What differs: MMPretrain's cosine starts after the warm-up, where timm's has gone on beneath it; the rate changes by
# iteration, not by epoch; crops are resized bicubically, where timm draws bilinear or bicubic.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py', 'mmpretrain::_base_/default_runtime.py'
]
custom_imports = dict(imports=['inceptionnext_seg', 'inceptionnext_seg.classification'], allow_failed_imports=False)

model = dict(
    type='InceptionNeXtClassifier',
    backbone=dict(type='InceptionNeXt', arch='tiny', out_indices=(3, ), drop_path_rate=0.1),
    head=dict(
        type='InceptionNeXtClsHead',
        in_channels=768,
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))

# 8 GPUs × 128 images × 4 steps, as in the official README.
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    accumulative_counts=4,
    paramwise_cfg=dict(_delete_=True, flat_decay_mult=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 4e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=300, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=310)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=4096)
