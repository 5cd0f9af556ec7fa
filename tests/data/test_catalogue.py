import contextlib
import hashlib
import http.server
import io
import socket
import socketserver
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vae_jax.data import catalogue
from vae_jax.data.catalogue import DownloadError, RemoteFile
from vae_jax.data.idx import IDX_FILES
from vae_jax.errors import UsageError

CONTENTS = {f"file-{i}.gz": bytes(100 * i + 1) for i in range(4)}


class Answer(http.server.BaseHTTPRequestHandler):
    """Gives a file by the last part of its path, also to those who take it for a proxy."""

    def do_GET(self):
        content = CONTENTS.get(self.path.rpartition("/")[2])
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


class Stall(http.server.BaseHTTPRequestHandler):
    """Accepts and never answers."""

    def handle(self):
        time.sleep(5)


class AnswerOnce(Answer):
    """Answers the probe and stalls after it."""

    def do_GET(self):
        if self.server.asked:
            time.sleep(5)
        self.server.asked = True
        super().do_GET()


@contextlib.contextmanager
def serving(handler):
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        block_on_close = False
        asked = False

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/some"
        finally:
            server.shutdown()
            thread.join()


def remote(address, sha256=None, names=CONTENTS):
    contents = {name: CONTENTS.get(name, b"") for name in names}
    return [
        RemoteFile(name, f"{address}/{name}", len(content), sha256 or hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    ]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("by_proxy", [False, True])
def test_download_brings_all_files_and_replaces_broken_ones(monkeypatch, tmp_path, by_proxy):
    folder = tmp_path / "new" / "mnist"
    folder.mkdir(parents=True)
    (folder / "file-1.gz").write_text("broken")
    with serving(Answer) as address:
        if by_proxy:
            monkeypatch.setenv("http_proxy", address)
        catalogue.download(remote("http://does-not-exist.invalid/some" if by_proxy else address), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS


@pytest.mark.parametrize(
    ("handler", "change", "reason"),
    [
        (Answer, {"sha256": "0" * 64}, "has wrong checksum"),
        (Answer, {"names": ["file-0.gz", "none.gz"]}, "404"),
        (AnswerOnce, {}, "the download did not end from 127.0.0.1"),
        (Stall, {}, "no answer came from 127.0.0.1"),
    ],
)
def test_failed_download_leaves_nothing(monkeypatch, tmp_path, handler, change, reason):
    if handler in (Stall, AnswerOnce):
        monkeypatch.setattr(catalogue, "PROBE_SECONDS" if handler is Stall else "DOWNLOAD_SECONDS", 0.5)
    folder = tmp_path / "new" / "mnist"
    with serving(handler) as address, pytest.raises(DownloadError, match=reason) as error:
        catalogue.download(remote(address, **change), folder)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_refused_connection_names_the_host(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(DownloadError, match=f"{address} can't be reached"):
        catalogue.download(remote(f"http://{address}"), tmp_path / "mnist")
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with serving(Answer) as address, pytest.raises(DownloadError, match="can't be written"):
        catalogue.download(remote(address), tmp_path / "file" / "mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_family_is_in_the_catalogue(name):
    files = catalogue.remote_files(name)
    assert {file.name for file in files} == {f"{file}.gz" for file in IDX_FILES}
    assert all(len(file.sha256) == 64 and file.size > 0 for file in files)


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(file, "png")
    return file.getvalue()  # encoding an array would need TensorFlow


class TinyImages(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    FEATURES = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    )

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.FEATURES)

    def _split_generators(self, _):
        return {"train": self._generate_examples(7), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(i), "label": i % 3}


class TinyNumbers(TinyImages):
    FEATURES = tfds.features.FeaturesDict({"number": np.int64})

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"number": i}


@pytest.fixture
def tfds_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def test_what_is_prepared_is_read_without_tensorflow_and_named_where_it_is_damaged(tfds_folder):
    assert not catalogue.is_prepared("tiny_images")
    TinyImages(data_dir=tfds_folder, file_format="array_record").download_and_prepare()
    assert catalogue.is_prepared("tiny_images")
    raw = catalogue.read_prepared("tiny_images")
    assert raw.train.images.shape == (7, 6, 5, 3)
    assert raw.test.images.shape == (2, 6, 5, 3)
    np.testing.assert_array_equal(raw.train.images[:, 0, 0, 0] % 3, raw.train.labels)
    assert raw.class_names == ("0", "1", "2")
    assert "tiny_images/1.0.0" in raw.source
    path = next(tfds_folder.rglob("*train.array_record*"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"tiny_images.* can't be read: .*\nDelete it and prepare tiny_images again"):
        catalogue.read_prepared("tiny_images")


def test_data_set_without_images(tfds_folder):
    TinyNumbers(data_dir=tfds_folder, file_format="array_record").download_and_prepare()
    with pytest.raises(UsageError, match=r"must have a feature image of shape .*, found number \(\)"):
        catalogue.read_prepared("tiny_numbers")
