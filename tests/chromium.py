"""A headless Chromium, and the picture of the page in the documentation:

    PYTHONPATH=. python tests/chromium.py docs/pictures/demo.jpg CONFIG CHECKPOINT CONFIG CHECKPOINT
"""
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver


def found():
    return (shutil.which('chromium') or shutil.which('google-chrome')) and shutil.which('chromedriver')


def start(downloads, size='1400,900'):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium') or shutil.which('google-chrome')
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', f'--window-size={size}',
                     '--no-proxy-server'):
        options.add_argument(argument)
    options.add_experimental_option('prefs', {
        'download.default_directory': str(downloads), 'profile.default_content_setting_values.automatic_downloads': 1})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    driver.downloads = Path(downloads)
    return driver


def wait(browser, script, seconds=60):
    """What ``script`` returns, once it is something."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f'return {script}')):
        assert time.monotonic() < end, (script, browser.execute_script('return document.body.innerText'))
        time.sleep(0.05)
    return value


POINT = '''
    const stage = document.querySelector('#viewer1 .stage'), box = stage.getBoundingClientRect();
    stage.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,
        clientX: box.left + box.width * arguments[0], clientY: box.top + box.height * arguments[1]}))'''


def main(out, *models):
    from inceptionnext_seg.cli.demo import named
    from inceptionnext_seg.demo.page import build, launch
    from inceptionnext_seg.demo.segmenting import example_images

    with tempfile.TemporaryDirectory() as folder:
        pairs = zip(models[::2], models[1::2], strict=True)
        page = build([named(*pair, 'cpu') for pair in pairs], example_images(Path(folder)), Path(folder), 10**7)
        browser = start(folder, '1280,860')
        browser.get(launch(page, None))
        for example in (1, 0):      # the first prediction of a size is slower
            wait(browser, "document.querySelectorAll('#examples button img').length")
            browser.execute_script(f"document.querySelectorAll('#examples button img')[{example}].click()")
            time.sleep(8)
        wait(browser, "document.querySelector('.viewer[data-ready]')")
        browser.execute_script(POINT, 0.6, 0.3)
        time.sleep(0.5)
        Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert('RGB').save(out, quality=85, optimize=True)
        browser.quit()
        page.close()


if __name__ == '__main__':
    main(*sys.argv[1:])
