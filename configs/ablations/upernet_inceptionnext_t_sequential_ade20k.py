# The bands in sequence, not in parallel: 1×11, then 11×1, on the same eighth of the channels. The other band's eighth
# passes unchanged, so that parameters and MACs stay those of the baseline. On ImageNet the paper reports 82.1 % top-1
# in sequence, 82.3 % in parallel.
_base_ = ['upernet_inceptionnext_t_baseline_ade20k.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('hw', 'w+h'))))
