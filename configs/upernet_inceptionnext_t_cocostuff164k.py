# InceptionNeXt-T on COCO-Stuff 164k; upernet_convnext_t_cocostuff164k.py is its baseline.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/cocostuff164k.py', '_base_/schedule_80k.py']

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
