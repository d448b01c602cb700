# Narrower branches, an eighth of the channels each instead of a quarter, as in the larger variants. Wider ones, as
# InceptionNeXt-T's ablation has them, do not fit here: twice a quarter in three branches is more than all channels.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(branch_ratio=1 / 8)))
