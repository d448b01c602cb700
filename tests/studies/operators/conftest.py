import pytest

from .common import result_where


@pytest.fixture(scope='module')
def result():
    return result_where(lambda case, counts: counts.bytes / 1e9)
