# Narrower branches, an eighth of the channels each instead of a quarter: the ratio of InceptionNeXt-T, S and B.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 8)))
