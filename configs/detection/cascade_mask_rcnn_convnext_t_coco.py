# Cascade Mask R-CNN with this package's ConvNeXt-T, for MMDetection: MMDetection's own ConvNeXt-T config and recipe, as
# in mask_rcnn_convnext_t_coco.py, with AdamW 2e-4 and layer-wise learning-rate decay 0.7.
_base_ = ['mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py']

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
