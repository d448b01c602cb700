# InceptionNeXt-T under the ConvNeXt baseline's recipe. Deviations from it: a new BatchNorm on each output stage, its
# own ImageNet-1k weights, and the paper's drop path; _base_/upernet_inceptionnext_t.py has the reasons. The paper's own
# recipe, Swin's, is upernet_inceptionnext_t_swin_recipe_ade20k.py.
_base_ = ['_base_/upernet_inceptionnext_t.py', '_base_/ade20k.py', '_base_/schedule_160k.py', '_base_/runtime.py']

model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
