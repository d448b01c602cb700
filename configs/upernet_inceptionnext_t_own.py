# Your own images with InceptionNeXt-T from ImageNet-1k weights, which are downloaded: for a GPU, or for hours on a CPU.
# A file that you have: --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/own.py', '_base_/schedule_own_pretrained.py']

model = dict(
    data_preprocessor=dict(size=(256, 256)),
    decode_head=dict(num_classes=2),
    auxiliary_head=dict(num_classes=2))
