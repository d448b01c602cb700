# timm's MobileNetV3-Small on the embedded data set, from scratch: the original of its Inception counterpart.
_base_ = ['../upernet_convnext_a_mini.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TIMMBackbone',
        model_name='mobilenetv3_small_100',
        features_only=True,
        pretrained=False,
        out_indices=(1, 2, 3, 4)),
    decode_head=dict(in_channels=[16, 24, 48, 576]),
    auxiliary_head=dict(in_channels=48))
