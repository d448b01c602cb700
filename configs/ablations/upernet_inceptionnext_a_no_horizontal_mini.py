# Without the horizontal band: its quarter of the channels passes unchanged, the other branches stay as they are.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('hw', 'h'))))
