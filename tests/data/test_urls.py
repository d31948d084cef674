"""Images on the web, served by this machine."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hf_accel.data import urls
from hf_accel.data.images import UnreadableImageError
from hf_accel.data.urls import fetch_image, is_url


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path):
    (tmp_path / "a.png").write_bytes(b"content")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_whole_and_a_missing_or_long_one_says_so(address, monkeypatch):
    assert fetch_image(f"{address}/a.png") == b"content"
    with pytest.raises(UnreadableImageError, match=r"/b\.png: .*answers 404"):
        fetch_image(f"{address}/b.png")
    monkeypatch.setattr(urls, "MOST_BYTES", 5)
    with pytest.raises(UnreadableImageError, match="larger than"):
        fetch_image(f"{address}/a.png")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "https://no.such.host.invalid/a.png", "http://[broken"])
def test_without_a_connection_one_message_says_so(url):
    with pytest.raises(UnreadableImageError, match=r"cannot be fetched .*connection"):
        fetch_image(url)


def test_a_url_is_told_from_a_path():
    assert [is_url(name) for name in ("HTTPS://a/b.png", "http://a", "https.png", "./http:/a", "a.png")] == [
        *(True, True),
        *(False, False, False),
    ]
