"""Result files as untrusted input."""
import os

import pytest

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import LARGEST_JSON, markdown_table, read_json, read_object, without_html, write_json


@pytest.mark.parametrize(('text', 'found'), [
    ('[' * 100_000, 'nested'), ('{"a":' * 100_000, 'nested'), ('{"a": NaN}', 'NaN'), ('{"a": 1e999}', '1e999'),
    ('{"a": -Infinity}', '-Infinity'), ('{"a": ' + '9' * 10_000 + '}', 'digits'), ('{"a"', 'line 1'), ('[1]', 'list')])
def test_a_file_that_is_no_object_of_json_is_one_message(tmp_path, text, found):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(UserError, match=rf'{path}.*{found}.*a result.*Next: make it\.|{path}.*a result.*{found}'):
        read_object(path, 'a result', 'make it')


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / 'a.json'
    with path.open('wb') as file:
        file.truncate(50 * LARGEST_JSON)
    with pytest.raises(UserError, match=str(50 * LARGEST_JSON)):
        read_object(path, 'a result', 'make it')


@pytest.mark.parametrize('content', [b'\xff\xfe', None])
def test_a_file_that_is_no_text_or_not_there_is_one_message(tmp_path, content):
    if content:
        (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(UserError, match='cannot be read as a result'):
        read_object(tmp_path / 'a.json', 'a result', 'make it')


def test_what_was_written_is_read(tmp_path):
    content = dict(a=[1, 2.5, None, True, 'text'], b=dict(c=-1e-9), c=['lane [ 1 ]', [1, 2]])
    content['d'] = os.fsdecode(b'stra\xdfe.jpg')    # a name in Latin-1
    write_json(tmp_path / 'a.json', content)
    assert read_json(tmp_path / 'a.json') == read_object(tmp_path / 'a.json', 'a result', 'make it') == content
    assert '[1, 2]' in (tmp_path / 'a.json').read_text()


def test_no_cell_of_a_table_is_a_tag_or_ends_its_row():
    table = markdown_table(['<b>', 'n'], [['`<script>`', 1], ['a\n<img src=x>', '1 < 2 <= 3 <-']])
    assert '<b' not in table and '<s' not in table and '<i' not in table and '1 < 2 <= 3 <-' in table
    assert len(table.splitlines()) == 4


def test_without_html_leaves_comparisons():
    assert without_html('a < b, </script>, <!--, <?x') == 'a < b, &lt;/script>, &lt;!--, &lt;?x'
