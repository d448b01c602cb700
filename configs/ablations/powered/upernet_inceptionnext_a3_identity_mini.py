# Identity alone, no token mixing within the blocks. Stem, downsampling and the heads still mix.
_base_ = ['upernet_inceptionnext_a3_inception_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=())))
