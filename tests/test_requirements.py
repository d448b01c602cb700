import sys
import types

import pytest

from inceptionnext_seg._requirements import require


def module_of_version(version):
    module = types.ModuleType('fake')
    module.__version__ = version
    return module


def test_a_missing_package_is_named_with_the_version_expected():
    with pytest.raises(ImportError, match=r'no_such_package >= 1\.2'):
        require(no_such_package='1.2')


def test_a_package_that_is_too_old_is_named_with_the_version_found_and_expected(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fake', module_of_version('0.9.12'))
    with pytest.raises(ImportError, match=r'fake >= 0\.10.*0\.9\.12'):
        require(fake='0.10')


@pytest.mark.parametrize('version', ['0.10', '0.10.7', '1.0', '2.14.1+cu130', '1.2.0rc4'])
def test_a_package_that_is_new_enough_passes(monkeypatch, version):
    monkeypatch.setitem(sys.modules, 'fake', module_of_version(version))
    require(fake='0.10')


def test_a_package_that_refuses_another_is_reported_with_its_reason(monkeypatch, tmp_path):
    (tmp_path / 'refusing.py').write_text("raise AssertionError('MMCV==2.2.0 is used but incompatible')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r'refusing >= 1\.2.*MMCV==2\.2\.0'):
        require(refusing='1.2')


def test_a_package_of_an_extra_is_reported_with_the_name_of_the_extra():
    with pytest.raises(ImportError, match=r"no_such_package >= 1\.2.*\[studies\]"):
        require(extra='studies', no_such_package='1.2')
