# Swin's recipe for UperNet, under which InceptionNeXt's paper trained (arXiv:2303.16900, section 4.2 and appendix A.2):
# AdamW 6e-5 for all layers alike, weight decay 0.01. Iterations, images, warm-up and linear decay are those of
# schedule_160k.py. Source: MMSegmentation's configs/swin/swin-tiny-*_upernet_8xb2-160k_ade20k-512x512.py, which are
# those of the Swin authors.
# Weight decay as there: the backbone's norms have none; biases, the heads' norms, which are called `bn`, and layer
# scales, which Swin has not, are decayed. Swin's norms all have `norm` in their names; those of InceptionNeXt's stem
# and downsampling are named here, too. The paper does not say how its authors treated these and the layer scales.
_base_ = ['schedule_160k.py']

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01, fused=True),
    paramwise_cfg=dict(
        custom_keys={
            'norm': dict(decay_mult=0.),
            'backbone.stem.1': dict(decay_mult=0.),
            'backbone.stages.1.downsample.0': dict(decay_mult=0.),
            'backbone.stages.2.downsample.0': dict(decay_mult=0.),
            'backbone.stages.3.downsample.0': dict(decay_mult=0.)
        }))
