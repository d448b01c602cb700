import pytest

from inceptionnext_seg.provenance import environment
from studies.throughput import measuring

from .common import CONVNEXT, INCEPTIONNEXT, SMALL, TINY


@pytest.fixture(scope='module', autouse=True)
def small_cache():
    """The pool of cold images is twice the last-level cache, which can be hundreds of megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('studies.timing.last_level_cache', lambda device: 2**20)
        yield


@pytest.fixture(scope='module')
def result():
    run = measuring.run([INCEPTIONNEXT, CONVNEXT], TINY, ('nchw', 'nhwc'), SMALL, rounds=8, warmup=1, memory=False)
    return dict(environment=environment('cpu'), runs=[run])
