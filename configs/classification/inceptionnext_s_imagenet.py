# InceptionNeXt-S: inceptionnext_t_imagenet.py with drop path 0.3 (scripts/inceptionnext of sail-sg/inceptionnext).
_base_ = ['inceptionnext_t_imagenet.py']

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
