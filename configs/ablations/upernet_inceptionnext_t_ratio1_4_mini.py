# Wider branches, a quarter of the channels each instead of an eighth: three quarters are convolved, one passes.
_base_ = ['upernet_inceptionnext_t_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 4)))
