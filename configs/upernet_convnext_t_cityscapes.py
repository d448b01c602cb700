# Cityscapes: the recipe of ADE20K in 80k iterations, MMSegmentation's longest for UperNet on it. The paper
# has no such row.
_base_ = ['_base_/upernet_convnext_t.py', '_base_/cityscapes.py', '_base_/schedule_80k.py']

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19))
