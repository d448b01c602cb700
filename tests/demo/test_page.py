"""The page in a headless Chromium: upload, result, error, download."""
import time

import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.data.mini import draw_scene

pytest.importorskip('gradio', '6.0', reason='needs gradio, the extra `demo`')
chromium = pytest.importorskip('chromium', reason='needs selenium')
wait = chromium.wait
pytestmark = pytest.mark.skipif(not chromium.found(), reason='needs chromium and chromedriver')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    driver = chromium.start(tmp_path_factory.mktemp('downloads'))
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp('scene') / 'my scene.png'
    Image.fromarray(np.asarray(draw_scene(2**19 + 38)[0])).save(path)
    return path


@pytest.fixture(scope='module')
def address(model, scene, tmp_path_factory):
    from inceptionnext_seg.demo.page import build, launch
    folder = tmp_path_factory.mktemp('page')
    blocks = build([model, model._replace(name='the other')], [scene], folder, 10**6)
    yield launch(blocks, None)
    blocks.close()


def upload(browser, path):
    wait(browser, "document.querySelector('#upload input[type=file]')")
    browser.find_element('css selector', '#upload input[type=file]').send_keys(str(path))


def clear(browser):
    browser.find_element('css selector', '#upload [aria-label="Clear"], #upload [title="Clear"]').click()
    wait(browser, "!document.querySelector('.viewer, .message')")


def downloaded(browser, button, name):
    browser.execute_script('document.querySelector(arguments[0]).click()', button)
    end = time.monotonic() + 20
    while not (browser.downloads / name).is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    return np.asarray(Image.open(browser.downloads / name))


def test_an_image_is_dropped_looked_at_and_downloaded(browser, address, scene, model):
    browser.get(address)
    upload(browser, scene)
    wait(browser, "document.querySelectorAll('.viewer[data-ready]').length == 2")
    expected = model.predictor.predict(scene)
    height, width = expected.classes.shape
    names = browser.execute_script("return [...document.querySelectorAll('#viewer1 .legend b')].map(b => b.innerText)")
    assert names == list(expected.shares)
    # The pointer on a pixel: its class and confidence, in both viewers.
    x, y = width // 3, height // 2
    browser.execute_script(chromium.POINT, (x + 0.5) / width, (y + 0.5) / height)
    told = f'{expected.labels.classes[expected.classes[y, x]]} {round(100 * float(expected.confidence[y, x]))} % ' \
           f'({x}, {y})'
    assert [tip.text for tip in browser.find_elements('css selector', '.tip')] == [told, told]
    # The colours as painted, all and of one class.
    paint = '''const canvas = document.querySelector('#viewer1 canvas');
        return [...canvas.getContext('2d').getImageData(arguments[0], arguments[1], 1, 1).data]'''
    painted = browser.execute_script(paint, x, y)
    assert painted == [*expected.labels.palette[expected.classes[y, x]].tolist(), 255]
    other = next(i for i, name in enumerate(expected.labels.classes)
                 if name in expected.shares and i != expected.classes[y, x])
    browser.execute_script('''document.querySelector(`#viewer1 [data-class="${arguments[0]}"]`).dispatchEvent(
        new PointerEvent('pointerover', {bubbles: true}))''', other)
    assert browser.execute_script(paint, x, y) == [0, 0, 0, 0]
    assert np.array_equal(downloaded(browser, '#classes1', 'my scene_classes.png'), expected.classes)
    assert downloaded(browser, '#overlay2', 'my scene_overlay.png').shape[0] >= height


def test_the_slider_changes_the_opacity_that_is_seen(browser, address, scene):
    browser.get(address)
    upload(browser, scene)
    wait(browser, "document.querySelectorAll('.viewer[data-ready]').length == 2")
    browser.execute_script('''
        const slider = document.querySelector('#opacity input[type=range]');
        slider.value = 0;
        for (const kind of ['input', 'change', 'pointerup']) slider.dispatchEvent(new Event(kind, {bubbles: true}));''')
    wait(browser, "getComputedStyle(document.querySelector('#viewer1 canvas')).opacity === '0'")


@pytest.mark.parametrize(('content', 'message'), [(b'text', 'is no image'), ('large', 'is too large: 1200×1000'),
                                                  (b'', 'empty')])
def test_a_file_that_cannot_be_used_is_a_message_and_the_next_one_works(
        browser, address, scene, tmp_path, content, message):
    path = tmp_path / 'broken.png'
    if content == 'large':
        Image.new('RGB', (1200, 1000)).save(path)
    else:
        path.write_bytes(content)
    browser.get(address)
    upload(browser, path)
    assert message in wait(browser, "document.querySelector('.message')?.innerText")
    assert not browser.find_elements('css selector', '.viewer')
    clear(browser)
    browser.execute_script("document.querySelector('#examples button img').click()")
    wait(browser, "document.querySelectorAll('.viewer[data-ready]').length == 2")
    assert not browser.find_elements('css selector', '.message')
