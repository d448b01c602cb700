# The baseline of upernet_inceptionnext_a_camvid.py.
_base_ = ['_base_/upernet_a.py', '_base_/camvid.py', '_base_/schedule_small.py']

model = dict(
    data_preprocessor=dict(size=(256, 256)), decode_head=dict(num_classes=11), auxiliary_head=dict(num_classes=11))
