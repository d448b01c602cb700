# Your own images from ImageNet-1k weights, which are downloaded; a file that you have, .pth or .safetensors, or a model
# of timm's, timm://inception_next_atto.sail_in1k:  --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = ['_base_/upernet_a.py', '_base_/own.py', '_base_/schedule_own_pretrained.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        drop_path_rate=0.1,
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_atto.pth')),
    data_preprocessor=dict(size=(256, 256)),
    decode_head=dict(num_classes=2),
    auxiliary_head=dict(num_classes=2))
