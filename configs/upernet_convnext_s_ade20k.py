# MMSegmentation's convnext-small_upernet recipe: drop path 0.3, learning-rate decay over 12 layers.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth')))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
