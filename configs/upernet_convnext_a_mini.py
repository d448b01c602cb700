# The baseline of upernet_inceptionnext_a_mini.py.
_base_ = ['_base_/upernet_a.py', '_base_/mini.py', '_base_/schedule_mini.py']

model = dict(
    data_preprocessor=dict(size=(128, 128)), decode_head=dict(num_classes=18), auxiliary_head=dict(num_classes=18))
