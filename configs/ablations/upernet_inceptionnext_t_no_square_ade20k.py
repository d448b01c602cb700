# Without the 3×3 square: its eighth of the channels passes unchanged, the other branches stay as they are.
_base_ = ['upernet_inceptionnext_t_baseline_ade20k.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('w', 'h'))))
