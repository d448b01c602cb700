# Identity alone, no token mixing within the blocks: what do the convolutions of the token mixer add at all? Stem,
# downsampling and the heads still mix.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(type='PartialInceptionDWConv2d', branches=())))
