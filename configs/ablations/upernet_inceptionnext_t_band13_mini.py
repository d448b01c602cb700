# Longer bands, 13 instead of 11: how far must the token mixer see? Square and branch ratio stay.
_base_ = ['upernet_inceptionnext_t_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(band_kernel_size=13)))
