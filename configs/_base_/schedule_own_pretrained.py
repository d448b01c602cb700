# Fine-tuning in the time there is: schedule_own.py with the recipe of pretrained weights, a lower rate that falls off
# towards the stem (0.9 a stage, as in schedule_160k.py).
_base_ = ['schedule_own.py']

optim_wrapper = dict(optimizer=dict(lr=3e-4), paramwise_cfg=dict(decay_rate=0.9))
