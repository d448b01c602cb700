# The bands in sequence, not in parallel: 1×9, then 9×1, on the same quarter of the channels. The other band's quarter
# passes unchanged, so that parameters and MACs stay those of the baseline.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('hw', 'w+h'))))
