"""The figures that InceptionNeXt's paper (arXiv:2303.16900) and MMSegmentation report, each here and nowhere else."""
from typing import NamedTuple


class Reported(NamedTuple):
    """A row of a segmentation table: parameters in M, with the auxiliary head; MACs in G, without; mIoU in per cent."""
    family: str
    arch: str
    parameters: int
    macs: int
    miou: float


# Table 5: UperNet on ADE20K, 512×512 crops, 160k iterations, batch 16; MACs at 512×2048; mIoU multi-scale with flip.
UPERNET = (
    Reported('ConvNeXt', 'tiny', 60, 939, 46.7),
    Reported('InceptionNeXt', 'tiny', 56, 933, 47.9),
    Reported('ConvNeXt', 'small', 82, 1027, 49.6),
    Reported('InceptionNeXt', 'small', 78, 1020, 50.0),
    Reported('ConvNeXt', 'base', 122, 1170, 49.9),
    Reported('InceptionNeXt', 'base', 115, 1159, 50.6),
)
# Table 6: Semantic FPN on ADE20K, 512×512; MACs at 512×512.
SEMANTIC_FPN = (
    Reported('InceptionNeXt', 'tiny', 28, 44, 43.1),
    Reported('InceptionNeXt', 'small', 50, 65, 45.6),
    Reported('InceptionNeXt', 'base', 85, 100, 46.4),
)


class Released(NamedTuple):
    """A released segmentor: mIoU single scale, and multi-scale with flip, in per cent; the URL of its checkpoint."""
    single_scale: float
    multi_scale: float
    weights: str


# MMSegmentation's own ConvNeXt UperNets of 512×512 on ADE20K, its model zoo: configs/convnext/metafile.yaml.
MMSEGMENTATION_CONVNEXT = dict(
    tiny=Released(46.11, 46.62, 'https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/'
                  'upernet_convnext_tiny_fp16_512x512_160k_ade20k/'
                  'upernet_convnext_tiny_fp16_512x512_160k_ade20k_20220227_124553-cad485de.pth'),
    small=Released(48.56, 49.02, 'https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/'
                   'upernet_convnext_small_fp16_512x512_160k_ade20k/'
                   'upernet_convnext_small_fp16_512x512_160k_ade20k_20220227_131208-1b1e394f.pth'),
    base=Released(48.71, 49.54, 'https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/'
                  'upernet_convnext_base_fp16_512x512_160k_ade20k/'
                  'upernet_convnext_base_fp16_512x512_160k_ade20k_20220227_181227-02a24fc6.pth'),
)
# Top-1 accuracy on ImageNet-1k, in per cent, of the weights that the configs start from, by file name: the paper's
# table of ImageNet-1k models; the kernel variants, README of sail-sg/inceptionnext. None: not reported with them.
IMAGENET_TOP1 = {
    'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634': None,
    'convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3': None,
    'convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547': None} | dict(
    inceptionnext_atto=75.3, inceptionnext_tiny=82.3, inceptionnext_small=83.5, inceptionnext_base=84.0,
    inceptionnext_base_384=85.2,
    convnext_atto=75.7, convnext_tiny_1k_224_ema=82.1, convnext_small_1k_224_ema=83.1, convnext_base_1k_224_ema=83.8,
    convnext_tiny_k5=82.0, convnext_tiny_k3=81.5, convnext_tiny_k3_par1_2=81.4, convnext_tiny_k3_par3_8=81.4,
    convnext_tiny_k3_par1_4=81.3, convnext_tiny_k3_par1_8=80.8, convnext_tiny_k3_par1_16=80.1)
