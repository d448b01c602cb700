# InceptionNeXt-T on Cityscapes; upernet_convnext_t_cityscapes.py is its baseline.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/cityscapes.py', '_base_/schedule_80k.py']

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19))
