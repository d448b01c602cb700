"""A folder of two images."""
import pytest
from two_images import picture


@pytest.fixture
def source(tmp_path):
    """Two images and no labels yet."""
    for seed, name in enumerate(('a.png', 'deep/B 2.PNG')):
        picture(tmp_path / 'source' / name, seed)
    return tmp_path / 'source'
