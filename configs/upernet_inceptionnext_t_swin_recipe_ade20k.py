# InceptionNeXt-T under the paper's own recipe, Swin's, where upernet_inceptionnext_t_ade20k.py has that of the ConvNeXt
# baseline. They differ in the optimizer alone; _base_/schedule_160k_swin.py has the reasons.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/ade20k.py', '_base_/schedule_160k_swin.py', '_base_/runtime.py']

model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
