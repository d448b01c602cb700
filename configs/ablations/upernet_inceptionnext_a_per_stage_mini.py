# A token mixer for each stage: Inception in the first two, whose maps are large, ConvNeXt's 7×7 in the last two, where
# it costs little.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(
    backbone=dict(
        token_mixer=[
            dict(type='InceptionDWConv2d'),
            dict(type='InceptionDWConv2d'),
            dict(type='DWConv2d', kernel_size=7),
            dict(type='DWConv2d', kernel_size=7)
        ]))
