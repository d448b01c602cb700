# Narrower branches, a sixteenth of the channels each instead of a quarter: 2 of the first stage's 40 channels.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 16)))
