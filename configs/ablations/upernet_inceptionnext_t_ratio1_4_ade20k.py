# Wider branches, a quarter of the channels each instead of an eighth: three quarters are convolved, one passes. On
# ImageNet the paper reports no gain from it.
_base_ = ['upernet_inceptionnext_t_baseline_ade20k.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 4)))
