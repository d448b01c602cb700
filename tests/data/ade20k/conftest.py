"""A made-up ADE20K, and a server that has it."""
import http.server
import threading

import pytest

from inceptionnext_seg.data import ade20k

from .common import CONTENT, IMAGE, Server, write_pair


@pytest.fixture
def ade(tmp_path):
    """Two training images and one validation image, all sound."""
    root = tmp_path / 'ADEChallengeData2016'
    for image in (IMAGE, 'images/training/ADE_train_00000002.jpg', 'images/validation/ADE_val_00000001.jpg'):
        write_pair(root, image)
    return root


@pytest.fixture
def small_official_set(monkeypatch):
    """As if the official set were the one of the fixture `ade`."""
    monkeypatch.setattr(ade20k, 'IMAGE_COUNTS', {'training': 2, 'validation': 1})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        server.content, server.behaviour, server.asked = CONTENT, 'ranges', []
        server.url = f'http://127.0.0.1:{server.server_port}/ADEChallengeData2016.zip'
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
