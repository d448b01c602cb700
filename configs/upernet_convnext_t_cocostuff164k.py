# COCO-Stuff 164k: the recipe of ADE20K in 80k iterations, MMSegmentation's shortest on it. The paper
# has no such row.
_base_ = ['_base_/upernet_convnext_t.py', '_base_/cocostuff164k.py', '_base_/schedule_80k.py']

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
