"""The report of a run: its numbers by hand, its text escaped, its file whole."""
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.engine.report import ReportHook, confusion_of, score_of, thinned, tiles
from inceptionnext_seg.engine.report_page import Content, WorstImage, chart, confusions, iou_of, page, ticks
from inceptionnext_seg.errors import SettingError

LABEL, FOUND = np.array([[0, 0, 1], [1, 2, 255]]), np.array([[0, 1, 1], [1, 0, 0]])
# Rows are labels: of two 0, one is found; both 1 are; the 2 is taken for 0.
CONFUSION = np.array([[1, 1, 0], [0, 2, 0], [1, 0, 0]])


def test_the_confusion_matrix_and_the_scores_are_those_worked_by_hand():
    found = confusion_of(LABEL, FOUND, 3)
    assert (found == CONFUSION).all()
    assert iou_of(found) == pytest.approx([100 / 3, 200 / 3, 0])
    assert score_of(found) == pytest.approx(100 / 3)
    assert score_of(confusion_of(np.full((2, 2), 255), FOUND[:, :2], 3)) is None
    assert confusions(found) == [(2, 0, 1.), (0, 1, 0.5)]
    assert np.isnan(iou_of(np.diag([1, 0]))[1])


class Page(HTMLParser):
    """Tags that are open at the end, tags seen, and addresses that are asked for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.asked = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.asked += [value for name, value in attrs if name in ('src', 'href')]
        if tag not in ('meta', 'img', 'line', 'circle', 'polyline', 'span'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_a_page_is_one_file_without_scripts_in_which_names_are_text():
    bad = '<script>alert("x")</script>\udc80&'
    text = page(Content(
        bad, [(bad, bad)], [(1, 1., 2.), (2, 3., float('nan'))], [(2, 120., 40.)], [bad, 'b', 'c'],
        [[1, 2, 3]] * 3, CONFUSION, [WorstImage(bad, 12.3, bad, b'jpeg'), WorstImage('b', 1., '', None)]))
    text.encode()
    found = Page(text)
    assert not found.open and 'script' not in found.seen and {'svg', 'table', 'img'} <= found.seen
    assert found.asked and all(address.startswith('data:image/jpeg;base64,') for address in found.asked)
    assert '&lt;script&gt;' in text and "default-src 'none'" in text
    assert '66.67' in text and '2.0 min' in text and '12.3 %' in text


def test_a_page_without_anything_yet_says_so():
    assert 'nothing yet' in page(Content('run', [], [], [], [], [], None, []))


def test_a_chart_has_round_numbers_and_a_point_for_each_value():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(0, 47) == [0, 10, 20, 30, 40]
    assert ticks(0, 6000, 8) == [0, 1000, 2000, 3000, 4000, 5000, 6000]
    found = chart([(100, 60., 1.), (200, 180., 3.)], 'Loss', 'loss')
    places = re.search(r'points="(.*?)"', found)[1].split()
    assert len(places) == 2 and places[1].startswith('744.0,')
    assert thinned(list(range(999))) == list(range(999)) and thinned(list(range(1000)))[-2:] == [998, 999]


def test_tiles_are_the_image_and_its_maps_and_a_broken_image_is_left_out(tmp_path):
    Image.new('RGB', (40, 20), (100, 100, 100)).save(tmp_path / 'a.png')
    maps = [np.zeros((20, 40), np.uint8), np.full((20, 40), 255, np.uint8)]
    (tmp_path / 'strip.jpg').write_bytes(tiles(str(tmp_path / 'a.png'), maps, [[255, 0, 0]]))
    with Image.open(tmp_path / 'strip.jpg') as strip:
        assert strip.size == (128, 20)
        shown = [strip.getpixel((x, 10)) for x in (20, 64, 108)]
    assert np.allclose(shown, [(100, 100, 100), (193, 40, 40), (100, 100, 100)], atol=6)
    (tmp_path / 'b.png').write_bytes(b'none')
    assert tiles(str(tmp_path / 'b.png'), maps, [[255, 0, 0]]) is None
    with pytest.raises(SettingError, match='worst=0'):
        ReportHook(worst=0)
