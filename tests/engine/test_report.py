"""The report of a run: its numbers by hand, its text escaped, its file whole."""
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from PIL import Image

from inceptionnext_seg.engine import report
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


def test_an_image_that_fills_up_the_share_of_a_process_is_counted_once(monkeypatch):
    """Three images of four pixels; of two processes the second has the second image and, once more, the first."""
    labels, founds = ([np.full((1, 2, 2), value) for value in values] for values in ((0, 1, 1), (1, 0, 1)))
    runner = SimpleNamespace(val_dataloader=SimpleNamespace(dataset=Images(3)))
    hooks = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        monkeypatch.setattr(report, 'get_rank', lambda rank=rank: rank)
        monkeypatch.setattr(report, 'get_world_size', lambda: 2)
        hooks.append(ReportHook())
        hooks[-1].before_val_epoch(runner)
        for i in DefaultSampler(runner.val_dataloader.dataset, shuffle=False):
            hooks[-1].after_val_iter(runner, i, outputs=[SimpleNamespace(
                pred_sem_seg=SimpleNamespace(data=torch.from_numpy(founds[i])), img_path=f'{i}.png',
                gt_sem_seg=SimpleNamespace(data=torch.from_numpy(labels[i])))])
    monkeypatch.setattr(report, 'all_gather_object', lambda own: [(hook.confusion, hook.candidates) for hook in hooks])
    hooks[0].gather()
    assert (hooks[0].confusion == [[0, 4], [4, 4]]).all()
    assert sorted(entry[2] for entry in hooks[0].candidates) == ['0.png', '1.png', '2.png']


class Images(list):
    metainfo = dict(classes=('a', 'b'))

    def __init__(self, count):
        super().__init__(range(count))


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
