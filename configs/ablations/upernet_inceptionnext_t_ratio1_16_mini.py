# Narrower branches, a sixteenth of the channels each instead of an eighth: of the 96 channels of the first stage each
# convolution has 6.
_base_ = ['upernet_inceptionnext_t_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 16)))
