# Your own images, as `inceptionnext-seg import SOURCE --out DIR` writes them: images/ and annotations/ with training
# and validation, and dataset.json. `tools/train.py CONFIG --data DIR` puts in what depends on them: folders, classes,
# palette, sizes, class weights, crop and batch (inceptionnext_seg/engine/own_data.py says how), and leaves them in the
# config beside the checkpoints. What stands here in their place is for two classes, and no folder is called so.
dataset_type = 'BaseSegDataset'
data_root = 'DIR of --data'
metainfo = dict(classes=('background', 'object'), palette=[[0, 0, 0], [220, 60, 60]])
crop_size = (256, 256)
scale = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # Half to twice the size, MMSegmentation's own range: few images from few distances must do for all others.
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    # In half of the crops a pixel of a class that was drawn first, all classes of the image alike.
    dict(type='RareClassCrop', crop_size=crop_size, cat_max_ratio=0.75, prob=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
img_ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in img_ratios],
            [
                dict(type='RandomFlip', prob=0., direction='horizontal'),
                dict(type='RandomFlip', prob=1., direction='horizontal')
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')]
        ])
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        # mmengine's: an image with a class that fewer than a tenth of the images have is shown more often, by the
        # square root of that (arXiv:1908.03195).
        type='ClassBalancedDataset',
        oversample_thr=0.1,
        dataset=dict(
            type='CountedSegDataset',
            data_root=data_root,
            metainfo=metainfo,
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='RecordingIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
