"""A folder of the files that a user might give by mistake or malice, each under a name that says what is wrong."""

import gzip
import io
import os
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from vae_jax.data.idx import IDX_FILES


def make_bad_files(folder):
    """Write them; what is called good is none."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4
    arrays = {
        "good": {"images": images, "labels": labels},
        "no_labels": {"images": images},
        "other_shape": {"images": images[:, :6]},
        "one_image": {"images": images[:1]},
        "three_images": {"images": images[:3], "labels": labels[:3]},
        "one_class": {"images": images, "labels": np.zeros(40, int)},
        "rare_class": {"images": images, "labels": (np.arange(40) == 0).astype(int)},
        "no_image": {"images": images[:0]},
        "no_images": {"pictures": images},
        "nothing": {},
        "scalar": {"images": np.uint8(3)},
        "flat": {"images": images.reshape(40, 64)},
        "five_axes": {"images": images[..., None, None]},
        "two_channels": {"images": np.stack([images, images], -1)},
        "channels_first": {"images": np.stack([images] * 3, 1)},
        "float_255": {"images": images.astype(float)},
        "float_negative": {"images": images / 255 - 0.5},
        "float_nan": {"images": np.where(images > 100, np.nan, 0.5)},
        "float_inf": {"images": np.where(images > 100, np.inf, 0.5)},
        "ints_negative": {"images": -images.astype(int)},
        "ints_large": {"images": images.astype(int) * 300},
        "ints_01": {"images": (images > 100).astype(int)},
        "complex": {"images": images.astype(complex)},
        "text": {"images": np.full((40, 8, 8), "a")},
        "dates": {"images": images.astype("M8[s]")},
        "structured": {"images": np.zeros((40, 8, 8), [("a", np.uint8)])},
        "objects": {"images": np.array([[None]], object)},
        "labels_short": {"images": images, "labels": labels[:-1]},
        "labels_2d": {"images": images, "labels": np.stack([labels, labels], 1)},
        "labels_float": {"images": images, "labels": labels / 1},
        "labels_nan": {"images": images, "labels": np.full(40, np.nan)},
        "labels_huge": {"images": images, "labels": labels + 2**40},
        "test_other_shape": {"images": images, "test_images": images[:, :5]},
        "test_empty": {"images": images, "test_images": images[:0]},
        "test_labels_alone": {"images": images, "test_labels": labels},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    good = (folder / "good.npz").read_bytes()
    damaged = {
        "empty": b"",
        "garbage": rng.bytes(3000),
        "html": b"<!DOCTYPE html><html>404</html>",
        "cut": good[: len(good) // 2],
        "flipped": good[:300] + bytes([good[300] ^ 1]) + good[301:],
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }
    for name, content in damaged.items():
        (folder / f"{name}.npz").write_bytes(content)
    with (folder / "single.npz").open("wb") as file:
        np.save(file, images)
    _archive(folder / "promises.npz", "images.npy", npy_header((10**12, 28, 28)))
    _archive(folder / "negative_size.npz", "images.npy", npy_header((-1, 8, 8)))
    _archive(folder / "no_header.npz", "images.npy", b"\x93NUMPY\x01\x00\xff\xff{'shape'")
    _archive(folder / "version_9.npz", "images.npy", b"\x93NUMPY\x09\x00" + bytes(100))
    _archive(folder / "dots.npz", "../images.npy", npy_header((0,)))
    _archive(folder / "absolute.npz", "/etc/images.npy", npy_header((0,)))
    link = zipfile.ZipInfo("images.npy")
    link.external_attr = 0o120777 << 16
    _archive(folder / "link.npz", link, b"/etc/passwd")
    # An entry that says it unpacks to four gigabytes.
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", b"0" * 1000)
    content = bytearray((folder / "bomb.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the directory's record: its uncompressed size stands at 24
    content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    (folder / "bomb.npz").write_bytes(content)
    (folder / "folder.npz").mkdir()
    (folder / "dangling.npz").symlink_to("nowhere.npz")
    (folder / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(folder / "pipe.npz")
    (folder / "device.npz").symlink_to("/dev/zero")
    _image_folders(folder, images)
    _idx_folders(folder)


def png_header(width, height):
    """The beginning of a grey PNG file of that size; what follows is missing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def npy_header(shape, descr="|u1"):
    """The beginning of a .npy file of that shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _archive(path, entry, content):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(entry, content)


def _image_folders(folder, images):
    def images_in(name, number=5):
        (folder / name).mkdir()
        for i in range(number):
            Image.fromarray(images[i]).save(folder / name / f"{i}.png")
        return folder / name

    images_in("images_good", 12)
    images_in("images_none", 0)
    images_in("images_three", 3)
    (images_in("images_empty") / "z.png").write_bytes(b"")
    path = images_in("images_cut") / "z.png"
    path.write_bytes((path.parent / "0.png").read_bytes()[:50])
    Image.new("I;16", (8, 8)).save(images_in("images_16bit") / "z.png")
    (images_in("images_bomb", 0) / "a.png").write_bytes(png_header(20_000, 20_000))
    # One of these fits, all of them do not.
    path = images_in("images_many", 0)
    Image.new("RGB", (4000, 4000)).save(path / "0.png", compress_level=1)
    for i in range(1, 50):
        os.link(path / "0.png", path / f"{i}.png")
    (images_in("images_dangling") / "z.png").symlink_to("nowhere.png")
    os.mkfifo(images_in("images_pipe") / "z.png")
    (images_in("images_deep", 0) / "class" / "deeper").mkdir(parents=True)


def _idx_folders(folder):
    def idx_in(name, number=20, changes=None):
        (folder / name).mkdir()
        for file in IDX_FILES:
            sizes = (number, 8, 8) if "images" in file else (number,)
            content = struct.pack(f">i{len(sizes)}I", 2048 + len(sizes), *sizes) + bytes(int(np.prod(sizes)))
            content = (changes or {}).get(file, content)
            if content is not None:
                (folder / name / file).write_bytes(content)

    first, first_labels, _, last = IDX_FILES
    idx_in("idx_missing", changes={last: None})
    idx_in("idx_empty", changes={first: b""})
    idx_in("idx_html", changes={first: b"<!DOCTYPE html>"})
    idx_in("idx_cut", changes={first: struct.pack(">i3I", 2051, 20, 8, 8) + bytes(100)})
    idx_in("idx_promises", changes={first: struct.pack(">i3I", 2051, 2**31, 2**15, 2**14) + bytes(84)})
    idx_in("idx_floats", changes={first: struct.pack(">i3I", 0xD03, 20, 8, 8) + bytes(4 * 20 * 64)})
    idx_in("idx_labels_few", changes={first_labels: struct.pack(">iI", 2049, 3) + bytes(3)})
    idx_in("idx_swapped", changes={first: struct.pack(">iI", 2049, 20) + bytes(20)})
    idx_in("idx_none", number=0)
    idx_in("idx_gzip_cut", changes={first: gzip.compress(bytes(2000))[:-6]})
    bomb = gzip.compress(struct.pack(">i3I", 2051, 2000, 28, 28) + bytes(20_000_000))
    idx_in("idx_gzip_bomb", changes={first: bomb})
    idx_in("idx_other_size", changes={IDX_FILES[2]: struct.pack(">i3I", 2051, 20, 7, 8) + bytes(20 * 56)})
