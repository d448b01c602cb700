# InceptionNeXt-T under UperNet. It differs from the baseline in what its author did for segmentation:
# - a new BatchNorm on each output stage, and SyncBN for every BN of the backbone where several GPUs train
#   (sail-sg/inceptionnext, issues 10 and 11);
# - its own ImageNet-1k weights;
# - drop path 0.2 (arXiv:2303.16900, appendix A.2: T 0.2, S 0.3, B 0.4), where the baseline has 0.4.
_base_ = ['upernet_convnext_t.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        drop_path_rate=0.2,
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth')))
