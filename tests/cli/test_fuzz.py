"""The readers of files, given anything: they answer or refuse, and take no more memory than the file allows."""

import dataclasses
import io
import json
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_files import npy_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments.study import read_study
from vae_jax import archives
from vae_jax.codecs import container
from vae_jax.codecs.entropy_coding import NotDecodableError, decode_symbols, encode_symbols, fit_prior
from vae_jax.codecs.lossy import QUALITIES, fit_codec
from vae_jax.config import Settings
from vae_jax.data import idx
from vae_jax.data.arrays import read_npz
from vae_jax.data.folders import read_folder
from vae_jax.data.raw import Reading
from vae_jax.errors import RunError, UsageError
from vae_jax.measures.threshold import Threshold
from vae_jax.runs import records

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 32 * 2**20
"""Of a reader given a file of some kilobytes, in bytes."""
fuzzed = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def reads_or_refuses(reader, *refusals):
    """Whether the reader gave something, rather than refused; any other exception goes on."""
    message = None
    tracemalloc.start()
    try:
        reader()
    except (UsageError, RunError, *refusals) as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert message is None or 1 <= len(message.splitlines()) <= 2
    assert peak < MOST_MEMORY
    return message is None


@st.composite
def mutated(draw, content):
    """A file of which bytes were changed, removed, repeated or added, or anything at all."""
    kind = draw(st.sampled_from(["change", "change", "cut", "repeat", "insert", "anything"]))
    if kind == "anything":
        return draw(st.binary(max_size=300))
    at = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:at]
    if kind == "repeat":
        end = draw(st.integers(at, len(content)))
        return content[:end] + content[at:end] * 2 + content[end:]
    new = draw(st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00" * 8]) | st.binary(min_size=1, max_size=8))
    return content[:at] + new + content[at + (len(new) if kind == "change" else 0) :]


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


PIXELS = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
IDX = struct.pack(">i3I", 2051, 5, 4, 4) + PIXELS.tobytes()
PNG = io.BytesIO()
Image.fromarray(PIXELS[0]).save(PNG, "PNG")
JPEG, EXIF = io.BytesIO(), Image.Exif()
EXIF[0x0112], EXIF[0x011A] = 6, 72.0  # orientation, resolution
Image.fromarray(PIXELS[0]).save(JPEG, "JPEG", exif=EXIF)


def idx_of(magic, sizes, rest):
    return struct.pack(f">i{len(sizes)}I", magic, *sizes) + rest


def zipped(array):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", array)
    return file.getvalue()


def with_header(text):
    header = text.encode("latin1")
    return zipped(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


SIZES = st.lists(st.integers(0, 2**32 - 1), max_size=3)
SHAPES = st.lists(st.integers(-5, 5) | st.integers(0, 2**70), max_size=5).map(tuple)
TYPES = st.sampled_from(["|u1", "<f8", "|O", "<U5", "|S0", "|V9", "<M8[s]", "|b1", "<f2", "", "??", "<u99999999999"])
HEADERS = st.text("{}()[]'\",: abshpedfortran_order|u1T\n\\0", max_size=80)
FILES = {
    "idx": mutated(IDX) | st.builds(idx_of, st.sampled_from([2049, 2051]), SIZES, st.binary(max_size=40)),
    "saved.npz": st.sampled_from([np.savez, np.savez_compressed]).map(lambda s: npz(s, images=PIXELS)).flatmap(mutated),
    "declared.npz": st.builds(lambda *of, rest: zipped(npy_header(*of) + rest), SHAPES, TYPES, rest=st.binary()),
    "header.npz": HEADERS.map(with_header),
    "images/a.png": st.sampled_from([PNG, JPEG]).map(io.BytesIO.getvalue).flatmap(mutated),
}
FILE_READERS = {"": idx.read_idx, ".npz": read_npz, ".png": lambda path: read_folder(path.parent, Reading())}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)

    @fuzzed
    @given(FILES[name])
    def check(content):
        path.write_bytes(content)
        reads_or_refuses(lambda: FILE_READERS[path.suffix](path))

    check()


def test_a_length_of_four_gigabytes_in_a_header_allocates_nothing(tmp_path):
    png, archive = PNG.getvalue(), npz(images=PIXELS)
    at, directory = png.index(b"IDAT") - 4, archive.rindex(b"PK\x05\x06") + 12
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png[:at] + b"\xff" * 4 + png[at + 4 :])
    (tmp_path / "a.npz").write_bytes(archive[:directory] + b"\xfe\xff\xff\xff" + archive[directory + 4 :])
    reads_or_refuses(lambda: read_folder(tmp_path / "images", Reading()))  # Pillow makes do with what is there
    assert not reads_or_refuses(lambda: read_npz(tmp_path / "a.npz"))


LETTERS = "ab1 /.\0\n\u2028\ud800é"  # of its own, as all of Unicode takes Hypothesis a minute the first time
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 10**400) | st.floats() | st.text(LETTERS, max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=3),
    max_leaves=5,
)
PART = {"loss": 2.0, "reconstruction": 1.5, "kl": 0.5}
ROW = {"epoch": 1, "step": 3, "beta": 1.0, "train": PART, "validation": PART, "images_per_second": 9.0, "seconds": 1.0}
DATASET = {"name": "digits", "source": "here", "sha256": "0" * 64, "image_shape": [8, 8, 1], "train": 4}
CONFIG = {"schema": records.SCHEMA_VERSION, "settings": dataclasses.asdict(Settings()), "dataset": DATASET}
THRESHOLD = Threshold("kl", 1.5, 0.1, 5, 1, 5, 3)
RECORDS = {
    "config.json": (CONFIG, lambda path: (records.read_settings(path, Settings), records.read_dataset_record(path))),
    "metrics.jsonl": (ROW, records.read_metrics),
    "summary.json": ({"test": PART, "epochs": 1}, records.read_summary),
    "study.json": ({"study": "sweep", "dataset": "digits", "sha256": "0"}, read_study),
    "anomaly.json": (dataclasses.asdict(THRESHOLD), Threshold.read),
}


@st.composite
def changed(draw, content):
    """JSON of which one value, at any depth, is another."""
    content = json.loads(json.dumps(content))
    inner, key = content, draw(st.sampled_from(sorted(content)))
    while isinstance(inner[key], dict) and draw(st.booleans()):
        inner, key = inner[key], draw(st.sampled_from(sorted(inner[key])))
    inner[key] = draw(JSON)
    return json.dumps(content).encode()


@pytest.mark.parametrize("name", RECORDS)
def test_records(tmp_path, name):
    content, reader = RECORDS[name]
    written = json.dumps(content).encode()
    (tmp_path / name).write_bytes(written)
    assert reads_or_refuses(lambda: reader(tmp_path))

    @fuzzed
    @given(changed(content) | mutated(written) | JSON.map(lambda value: json.dumps(value).encode()))
    def check(fuzz):
        (tmp_path / name).write_bytes(fuzz)
        reads_or_refuses(lambda: reader(tmp_path))

    check()


SIDE = st.integers(0, 2**16 - 1)
HEADER = container.Header(3, 5, (8, 8, 1), bytes(16))


@fuzzed
@given(mutated(container.pack(HEADER, b"payload!")))
def test_compressed_files(content):
    whole = content == container.pack(HEADER, b"payload!")
    assert reads_or_refuses(lambda: container.unpack(content)) == whole


@fuzzed
@given(st.binary(max_size=64), st.integers(0, 2**32 - 1), st.tuples(SIDE, SIDE, st.integers(0, 255)))
def test_compressed_files_with_a_right_checksum(payload, number, shape):
    content = container.pack(container.Header(3, number, shape, bytes(16)), payload)
    reads_or_refuses(lambda: container.unpack(content))


SYMBOLS = np.random.default_rng(0).integers(-3, 4, (60, 4))
PRIOR = fit_prior(SYMBOLS, np.arange(60) % 2, 2)


@fuzzed
@given(mutated(encode_symbols(SYMBOLS[:9], PRIOR)), st.integers(0, 2**31))
def test_payloads(payload, number):
    reads_or_refuses(lambda: decode_symbols(payload, number, PRIOR), NotDecodableError)
    reads_or_refuses(lambda: decode_symbols(payload, 9, PRIOR), NotDecodableError)


def test_codecs(tmp_path):
    codes = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    path = tmp_path / "codec.npz"
    container.write_codec(path, fit_codec(codes, codes[:20], np.eye(2)))
    written = path.read_bytes()
    assert reads_or_refuses(lambda: container.read_codec(path, 2))

    @fuzzed
    @given(mutated(written))
    def check(content):
        path.write_bytes(content)
        if reads_or_refuses(lambda: container.read_codec(path, 2)):
            assert len(container.read_codec(path, 2).priors) == len(QUALITIES)

    check()


def test_what_is_stored_in_an_archive_is_read_as_numpy_reads_it(tmp_path):
    arrays = {
        "a": PIXELS,
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.array(["x", "yz"]),
        "d": np.zeros((0, 3)),
        "e": np.float32(2.5),
        "f": np.arange(4, dtype=">i4"),
    }
    for save in (np.savez, np.savez_compressed):
        (tmp_path / "all.npz").write_bytes(npz(save, **arrays))
        found, names = archives.read_arrays(tmp_path / "all.npz")
        assert names == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(found[name], array)


def test_no_source_file_runs_what_it_reads():
    forbidden = re.compile(
        r"\b(?:pickle|dill|marshal|shelve|joblib|cloudpickle)\b|allow_pickle=True|(?<![.\w])(?:eval|exec)\(|np\.load\("
        r"|yaml\.load|torch\.load|extractall|shell=True|os\.system"
    )
    found = []
    for folder in ("vae_jax", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                code = line.split("#")[0]
                if forbidden.search(code) and "no pickle" not in line and "without pickle" not in line:
                    found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
    assert forbidden.search("x = np.load(file)")
    assert forbidden.search("eval(text)")
