# Without the 3×3 square: its quarter of the channels passes unchanged.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('w', 'h'))))
