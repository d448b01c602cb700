"""The command line of the page."""
import re
import sys

import pytest


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], r'no CONFIG and CHECKPOINT are given, and there is no work_dirs/.* of `make train` here'),
    (['upernet_inceptionnext_a_mini'], r'no CHECKPOINT is given'),
    (['--max-megapixels', '0'], r'--max-megapixels is 0; expected: more than 0')])
def test_a_wrong_argument_is_one_message(call_tool, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = call_tool('demo', *arguments)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert re.search(message, result.stderr)


def test_without_gradio_the_message_says_how_to_install_it(call_tool, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'inceptionnext_seg.demo.page', raising=False)
    result = call_tool('demo', 'upernet_inceptionnext_a_mini', 'none.pth')
    assert result.returncode == 2 and 'pip install "inceptionnext-seg[demo]"' in result.stderr
