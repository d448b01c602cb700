# Your own images from scratch, without any download, in an hour on a laptop's CPU:
#     python tools/train.py configs/upernet_inceptionnext_a_own.py --data DIR --minutes 60
# Pretrained weights matter more than any setting here: upernet_inceptionnext_a_pretrained_own.py. Published on CamVid's
# test images: 51 to 56 mIoU from scratch (ENet, SegNet), 66 to 69 with ImageNet weights (BiSeNet, arXiv:1808.00897).
_base_ = ['_base_/upernet_a.py', '_base_/own.py', '_base_/schedule_own.py']

model = dict(
    backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')),
    data_preprocessor=dict(size=(256, 256)),
    decode_head=dict(num_classes=2),
    auxiliary_head=dict(num_classes=2))
