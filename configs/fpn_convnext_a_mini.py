# The embedded set with Semantic FPN instead of UperNet, under UperNet's recipe there.
_base_ = ['_base_/fpn_a.py', '_base_/mini.py', '_base_/schedule_mini.py']

model = dict(data_preprocessor=dict(size=(128, 128)), decode_head=dict(num_classes=18))
