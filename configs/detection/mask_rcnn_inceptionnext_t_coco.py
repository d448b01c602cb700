# Mask R-CNN with InceptionNeXt-T: mask_rcnn_convnext_t_coco.py with another backbone, its own
# ImageNet-1k weights, and what its author did for segmentation: SyncBN for every BatchNorm and on each output
# (sail-sg/inceptionnext, issues 10 and 11), drop path 0.2 (arXiv:2303.16900, appendix A.2). The paper has no detectors.
_base_ = ['mask_rcnn_convnext_t_coco.py']

model = dict(
    backbone=dict(
        type='inceptionnext_seg.InceptionNeXt',
        drop_path_rate=0.2,
        norm_cfg=dict(type='SyncBN'),
        out_norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth')))
