# MMSegmentation's convnext-base_upernet recipe: drop path 0.4, learning-rate decay over 12 layers.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
