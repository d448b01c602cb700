# Pascal VOC 2012 aug: the recipe of ADE20K in 40k iterations, MMSegmentation's longest for UperNet on it. The paper
# has no such row.
_base_ = ['_base_/upernet_convnext_t.py', '_base_/voc12aug.py', '_base_/schedule_40k.py']

model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
