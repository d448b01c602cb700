# What every config shares: registration, hooks, logs.
default_scope = 'mmseg'
custom_imports = dict(
    imports=[
        'inceptionnext_seg', 'inceptionnext_seg.data.datasets', 'inceptionnext_seg.engine',
        'inceptionnext_seg.engine.settings_hook', 'inceptionnext_seg.engine.visualization',
        'inceptionnext_seg.segmentation'
    ],
    allow_failed_imports=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
# SyncBN when several CUDA processes train, BN otherwise, on CPU processes too.
model_wrapper_cfg = dict(type='AnyDeviceDistributedDataParallel')
default_hooks = dict(
    # Settings that nothing reads, values out of range, parts of the model that do not fit: one message each.
    settings=dict(type='SettingsCheckHook'),
    # Decodes every image and mask once; --cfg-options default_hooks.data.enabled=False where that takes too long.
    data=dict(type='DataCheckHook'),
    # load_from and resume give every tensor of the model, but for the classifiers of another number of classes.
    weights=dict(type='StrictLoadHook'),
    # The same model, computed faster; --cfg-options default_hooks.accelerate.enabled=False leaves it as it is.
    accelerate=dict(type='AccelerateHook'),
    # Only where a config has compile=True, as tools/train.py --compile sets it.
    compile=dict(type='CompileHook'),
    # Stops at the first loss or gradient that is not finite; the last checkpoint stays.
    finite=dict(type='FiniteHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
custom_hooks = [dict(type='ThroughputHook'), dict(type='MetricsFileHook')]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
tta_model = dict(type='SegTTAModel')
