# The bands in sequence, 1×9 and then 9×1, on one quarter of the channels. The other band's quarter passes unchanged,
# so that parameters and MACs stay those of the baseline.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=('hw', 'w+h'))))
