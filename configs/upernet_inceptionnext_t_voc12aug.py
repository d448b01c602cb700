# InceptionNeXt-T on Pascal VOC 2012 aug; upernet_convnext_t_voc12aug.py is its baseline.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/voc12aug.py', '_base_/schedule_40k.py']

model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
