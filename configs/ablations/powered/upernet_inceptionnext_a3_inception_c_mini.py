# The network of the inception arm once more, its initial weights drawn a third time: after one more draw of the
# backbone's the generator has other numbers for all that follows.
_base_ = ['upernet_inceptionnext_a3_inception_b_mini.py']

model = dict(backbone=dict(init_cfg=[dict(type='TruncNormal', layer='Conv2d', std=0.02, bias=0.)] * 2))
