# The same network with Inception depthwise convolutions of the same strides (docs/generalization.md).
_base_ = ['upernet_timm_mobilenetv3_small_mini.py']

model = dict(backbone=dict(_delete_=True, type='DepthwiseReplaced', model={{_base_.model.backbone}}))
