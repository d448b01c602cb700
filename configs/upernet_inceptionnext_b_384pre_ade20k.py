# InceptionNeXt-B from its weights of 384×384 images, in crops of 640: data and sliding window as MMSegmentation's
# convnext-base_upernet of 640×640 has them, the rest as upernet_inceptionnext_b_ade20k.py. The papers have no such row.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/ade20k_640.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_base_384.pth')),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(mode='slide', crop_size=(640, 640), stride=(426, 426)))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
