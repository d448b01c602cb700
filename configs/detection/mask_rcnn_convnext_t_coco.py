# Mask R-CNN with this package's ConvNeXt-T, for MMDetection: MMDetection's own ConvNeXt-T config and recipe (AMP,
# multi-scale crops, 36 epochs of 16 images, AdamW 1e-4, layer-wise learning-rate decay 0.95), which needs MMPretrain.
# This one does not, and starts from the weights that the ConvNeXt authors released.
_base_ = ['mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py']

custom_imports = dict(imports=['inceptionnext_seg', 'inceptionnext_seg.engine.optim'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='inceptionnext_seg.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')))
optim_wrapper = dict(constructor='MetaNeXtDecayOptimWrapperConstructor')
