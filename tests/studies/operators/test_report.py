import re

import pytest

from inceptionnext_seg.errors import UserError
from studies.operators.document import MARKER, fill
from studies.operators.report import markdown, write_report
from studies.operators.result import read_result

from .common import result_where


def test_a_document_is_filled_from_the_result(result):
    text = ('before <!-- measured: bytes sequential:7x7 / square:7x7 depthwise nchw infer -->?<!-- /measured -->, '
            '<!-- measured: macs inception:11x11:1/8 / square:7x7 depthwise nchw infer --><!-- /measured --> after\n'
            '<!-- measured: limits -->old<!-- /measured -->\n'
            '<!-- measured: time sequential:3x3 / square:3x3 dense nchw infer @32x1x2:fp32 --><!-- /measured -->')
    filled = fill(text, result)
    # 2 × (C·H·W·2·B + weights) over one; (9 + 11 + 11) / 8 products for 49.
    assert 'depthwise nchw infer -->2.00<!-- /measured -->, ' in filled
    assert f'-->{31 / 8 / 49:.2f}<!-- /measured --> after' in filled
    # On one pixel: 2 × (images 2 · 64, weights 3 · 32², bias 32) over (2 · 64, 9 · 32², 32).
    assert f'-->{2 * (128 + 3 * 1024 + 32) / (128 + 9 * 1024 + 32):.2f}<!-- /measured -->' in filled
    assert '| fp32 | 1.0 | 1.0 | 4.0 | 1.0 |' in filled
    assert fill(filled, result) == filled


@pytest.mark.parametrize('what', ['nothing known', 'time square:7x7 / cube:7x7 depthwise nchw infer',
                                  'time square:9x9 / square:7x7 depthwise nchw infer'])
def test_a_document_that_asks_for_what_is_not_there_is_an_error(result, what):
    with pytest.raises(UserError, match='Next: '):
        fill(f'<!-- measured: {what} --><!-- /measured -->', result)


def test_a_result_without_one_grouping_or_mode_is_reported_too(tmp_path):
    result = result_where(lambda case, counts: 1e-6, grouping=['dense'], mode=['infer'], form=['square', 'row'])
    write_report(result, tmp_path / 'part.md')
    assert 'Factorized, depthwise' not in (tmp_path / 'part.md').read_text()


# What is in the repository


@pytest.fixture(scope='module')
def kept(root):
    return read_result(root / 'docs' / 'results' / 'operators_cpu.json')


def test_the_tables_in_the_repository_are_those_of_its_result(root, kept):
    text = (root / 'docs' / 'results' / 'operators_cpu.md').read_text(encoding='utf-8')
    assert text == markdown(kept, 'operators_cpu')


def test_every_figure_of_the_document_is_that_of_the_result(root, kept):
    text = (root / 'docs' / 'factorized_convolutions.md').read_text(encoding='utf-8')
    assert fill(text, kept) == text
    by_hand = MARKER.sub('', text).replace('95 % bootstrap intervals', '')
    assert not re.findall(r'\d+\.\d+|\d+ ?(?:%|ms|µs|GB|GMACs|times\b)', by_hand)


def test_the_figures_of_the_document_are_there_and_small(root):
    text = (root / 'docs' / 'factorized_convolutions.md').read_text(encoding='utf-8')
    images = re.findall(r'!\[[^]]+\]\(([^)]+)\)', text)
    assert images
    for image in images:
        assert (root / 'docs' / image).stat().st_size < 200_000
