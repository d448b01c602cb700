# Shorter bands, 5 instead of 9: how far must the token mixer see? Square and branch ratio stay.
_base_ = ['upernet_inceptionnext_a_baseline_mini.py']

model = dict(backbone=dict(token_mixer=dict(band_kernel_size=5)))
