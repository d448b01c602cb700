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
# MMSegmentation's own ConvNeXt UperNets, its model zoo: mIoU single scale, and multi-scale with flip.
MMSEGMENTATION_CONVNEXT = dict(tiny=(46.11, 46.62), small=(48.56, 49.02), base=(48.71, 49.54))
