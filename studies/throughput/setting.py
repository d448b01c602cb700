"""What is measured of every candidate alike."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """What is measured of every candidate alike.

    Attributes:
        mode (str): 'train' is forward, loss, backward and AdamW step; 'infer' is forward to class indices.
        part (str): 'segmentor' with its heads, or 'backbone' alone (its loss: the mean of its outputs).
        batch_size (int), size (int), width (int | None): Images of a step, their height, and their width in pixels
            where that is another.
        dtype (str): 'fp32', or 'bf16' / 'fp16' by autocast.
        compile (bool): torch.compile of the forward.
    """
    mode: str = 'train'
    part: str = 'segmentor'
    batch_size: int = 2
    size: int = 512
    dtype: str = 'fp32'
    compile: bool = False
    device: str = 'cpu'
    width: int | None = None

    @property
    def image_size(self):
        return self.size, self.width or self.size
