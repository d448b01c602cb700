# Semantic FPN's recipe in InceptionNeXt's paper (arXiv:2303.16900, section 4.2), which follows PVT and PoolFormer: 32
# images an iteration, AdamW 2e-4, weight decay 1e-4 on every parameter, polynomial decay of power 0.9 from the first
# iteration, 40k iterations, no warm-up and no learning-rate decay over the layers. Source: fpn_pvt_s_ade20k_40k.py of
# whai362/PVT and fpn_poolformer_s24_ade20k_40k.py of sail-sg/poolformer. Both write it as MMSegmentation's 80k
# iterations of 16 images at 1e-4 on twice the GPUs: half the iterations, twice the rate.
_base_ = ['runtime.py']
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4, fused=True))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=40000)]
train_cfg = dict(
    type='TotalBatchTrainLoop', total_batch_size=32, micro_batch_size=None, max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=True, base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=4000))
