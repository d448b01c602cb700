# Narrower branches, a sixteenth of the channels each instead of a quarter: of the 40 channels of the first stage each
# convolution has 2.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 16)))
