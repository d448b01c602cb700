"""What a browser gets of a prediction."""
import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from inceptionnext_seg.api import Prediction
from inceptionnext_seg.demo.segmenting import Model, Result
from inceptionnext_seg.demo.viewer import message, viewer
from inceptionnext_seg.engine.inference import Labels
from inceptionnext_seg.errors import UserError

NASTY = '<script>alert("tree")</script>'


def result(height=3, width=4):
    """Three quarters of class 300 and a quarter of class 2, of 301 classes."""
    names = [f'class {i}' for i in range(301)]
    names[2] = NASTY
    labels = Labels(tuple(names), np.arange(903).reshape(301, 3).astype(np.uint8), 0)
    classes = np.full((height, width), 300, np.uint16)
    classes[:, : width // 4] = 2
    confidence = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Result(Model('a <b>', None), Prediction(classes, confidence, confidence, None, labels, image, None), 1.234)


class Attributes(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2])))


def test_the_browser_gets_classes_and_confidences_and_nothing_of_a_strangers_names_is_html():
    shown = result()
    text = viewer(shown)
    tags = Attributes(text).tags
    assert {tag for tag, _ in tags} <= {
        'figure', 'figcaption', 'b', 'span', 'div', 'img', 'canvas', 'output', 'ul', 'li', 'button', 'i'}
    figure = tags[0][1]
    assert json.loads(figure['data-labels'])['classes'][2] == NASTY and figure['data-size'] == '4,3'
    pixels = np.asarray(decoded(figure['data-pixels'])).astype(int)
    assert np.array_equal(pixels[..., 0] + 256 * pixels[..., 1], shown.prediction.classes)
    assert np.abs(pixels[..., 2] / 255 - shown.prediction.confidence).max() <= 0.5 / 255 + 1e-6
    assert re.findall(r'data-class="(\d+)".*?<span>(.*?)</span>', text) == [('300', '75.0 %'), ('2', '25.0 %')]
    assert '1.23 s, 4×3, mean confidence 50 %' in text


def test_of_a_large_image_the_browser_gets_pixels_of_it_evenly_spaced():
    tags = Attributes(viewer(result(1500, 2560))).tags
    pixels = np.asarray(decoded(tags[0][1]['data-pixels']))
    assert pixels.shape == (750, 1280, 3) and tags[0][1]['data-size'] == '2560,1500'
    assert (pixels[:, :320, 0] == 2).all() and (pixels[:, 320:, 1] == 1).all()
    image, = (decoded(attributes['src']) for tag, attributes in tags if tag == 'img')
    assert image.size == (1280, 750)


def test_a_message_is_text():
    assert message(UserError('no <i>mage</i>')) == '<p class="message" role="alert">no &lt;i&gt;mage&lt;/i&gt;</p>'
