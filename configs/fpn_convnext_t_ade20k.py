# The baseline of fpn_inceptionnext_t_ade20k.py: same recipe, same drop path. The paper has no such row.
_base_ = ['_base_/fpn.py', '_base_/ade20k_multiple_of_32.py', '_base_/schedule_fpn_40k.py']

model = dict(
    backbone=dict(
        type='ConvNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')))
