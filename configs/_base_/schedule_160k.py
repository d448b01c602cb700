# One recipe for every UperNet here, MMSegmentation's own for ConvNeXt: AdamW 1e-4, weight decay 0.05 (norms, biases and
# layer scales have none), linear warm-up over 1500 iterations, linear decay to 0 at 160k, stage-wise learning-rate
# decay 0.9, 16 images an iteration over all processes. Where a GPU's memory is short, --cfg-options
# train_cfg.micro_batch_size=4 accumulates gradients: the same recipe, but for the images that a BatchNorm sees at once,
# and for a loss with class_weight or avg_non_ignore, which divides by what each part has; these configs have neither.
# The precision is not MMSegmentation's, which trains in fp16 (AmpOptimWrapper); a CPU cannot. Here --amp trains in
# mixed precision, in bf16 where the device has it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='MetaNeXtDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000)
]
train_cfg = dict(
    type='TotalBatchTrainLoop', total_batch_size=16, micro_batch_size=None, max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# The rate above is for 16 images; another total_batch_size scales it linearly.
auto_scale_lr = dict(enable=True, base_batch_size=16)
