# InceptionNeXt-B: inceptionnext_t_imagenet.py with drop path 0.4 (scripts/inceptionnext of sail-sg/inceptionnext). It
# is tested on the middle 95 % of an image, where the others take 87.5 % (timm's inception_next).
_base_ = ['inceptionnext_t_imagenet.py']

model = dict(backbone=dict(arch='base', drop_path_rate=0.4), head=dict(in_channels=1024))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=236, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
