# RetinaNet with this package's ConvNeXt-T, for MMDetection: its 12-epoch config of ResNet-50, with the optimizer of its
# Mask R-CNN with ConvNeXt-T (AdamW 1e-4, layer-wise learning-rate decay 0.95); MMDetection has no such RetinaNet.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']

custom_imports = dict(imports=['inceptionnext_seg', 'inceptionnext_seg.engine.optim'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='inceptionnext_seg.ConvNeXt',
        arch='tiny',
        # The FPN takes the last three stages. With all four and start_level=1 the first stage's output norm would get
        # no gradient, which DistributedDataParallel refuses.
        out_indices=(1, 2, 3),
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/'
            'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')),
    neck=dict(in_channels=[192, 384, 768], start_level=0))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='MetaNeXtDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise', num_layers=6))
