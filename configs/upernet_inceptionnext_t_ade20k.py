# InceptionNeXt-T under the ConvNeXt baseline's recipe. Deviations from it:
# - a new BatchNorm on each output stage, and SyncBN for every BN of the backbone where several GPUs train: as the
#   paper's author did for segmentation (sail-sg/inceptionnext, issues 10 and 11);
# - its own ImageNet-1k weights.
# Drop path stays at the baseline's 0.4: both backbones use 0.1 on ImageNet at this size, and the paper's value for
# segmentation is not published.
_base_ = ['upernet_convnext_t_ade20k.py']

model = dict(
    backbone=dict(
        type='InceptionNeXt',
        out_norm_cfg=dict(type='BN'),
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth')))
