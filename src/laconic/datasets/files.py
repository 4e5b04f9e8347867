"""The canonical files of public data sets: where they live, and strict readers for them.

`located` looks under the directory that the environment variable ``LACONIC_DATA`` names and never downloads while it is
set; otherwise pooch downloads once, checked by hash, into its cache. Readers refuse anything but a whole file, with one
line that names the file, what was expected and what was found.

IDX is specified on LeCun, Cortes & Burges' MNIST page; the binary version of CIFAR-10, on Krizhevsky's (2009).
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from laconic.errors import DataError, DownloadError

VARIABLE = "LACONIC_DATA"
N_CLASSES = 10


@dataclass(frozen=True)
class Source:
    """The files of one data set, and their origin."""

    folder: str  # the data set's own
    files: tuple[str, ...]  # paths in that folder
    md5s: Mapping[str, str]  # of each download, by URL; a ``.tar.gz`` is unpacked in place


def located(source: Source) -> tuple[Path, ...]:
    """The paths of a source's files, which exist.

    Raises:
        FileNotFoundError: ``LACONIC_DATA`` is set and lacks a file.
        DownloadError: ``LACONIC_DATA`` is not set and a download failed.
        ImportError: ``LACONIC_DATA`` is not set and pooch is not installed.
    """
    root = os.environ.get(VARIABLE)
    folder = Path(root, source.folder) if root else _downloaded(source)
    paths = tuple(folder / file for file in source.files)
    for path in paths:
        if not path.is_file():
            advice = f"put it there, or unset {VARIABLE} to download it"
            raise FileNotFoundError(f"{path}: expected a file of {source.folder}, found none; {advice}")
    return paths


def _downloaded(source: Source) -> Path:
    try:
        import pooch
    except ImportError as error:
        advice = f'pip install "laconic-nn[demo]", or set {VARIABLE} to a directory that has it'
        raise ImportError(f"downloading {source.folder} needs pooch: {advice}") from error
    folder = Path(pooch.os_cache("laconic")) / source.folder
    for url, md5 in source.md5s.items():
        unpack = pooch.Untar([*source.files], extract_dir=".") if url.endswith(".tar.gz") else None
        name = url.rpartition("/")[2]
        try:
            pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, processor=unpack)
        except (OSError, ValueError) as error:  # no connection; a hash that differs
            advice = f"set {VARIABLE} to a directory that holds {source.folder}/"
            raise DownloadError(f"{url}: download failed ({_one_line(error)}); {advice}") from error
    return folder


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def read_idx(path: Path, example_shape: tuple[int, ...]) -> UInt8[np.ndarray, " examples *shape"]:
    """Read a gzipped IDX file of bytes, whose examples have that shape.

    DataError if the file is not gzip, has another type or shape, is cut or has bytes to spare.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a whole gzip file, found {_one_line(error)}") from error
    n_axes = 1 + len(example_shape)
    magic, n_header = bytes((0, 0, 8, n_axes)), 4 + 4 * n_axes  # 8: unsigned bytes
    if content[:4] != magic:
        raise DataError(f"{path}: expected magic {magic.hex()}, found {content[:4].hex()}")
    if len(content) < n_header:
        raise DataError(f"{path}: expected a header of {n_header} bytes, found {len(content)}")
    shape = tuple(np.frombuffer(content, ">u4", n_axes, offset=4).tolist())
    if shape[1:] != example_shape:
        raise DataError(f"{path}: expected examples of shape {example_shape}, found {shape[1:]}")
    n_found = len(content) - n_header
    if n_found != math.prod(shape):
        raise DataError(f"{path}: expected {math.prod(shape)} bytes for {shape}, found {n_found}")
    return np.frombuffer(content, np.uint8, offset=n_header).reshape(shape)


def read_records(path: Path, n_bytes: int) -> UInt8[np.ndarray, "examples bytes"]:
    """Read records of `n_bytes` bytes each; DataError if the file is empty or its last record is not whole."""
    content = np.fromfile(path, np.uint8)
    if not content.size or content.size % n_bytes:
        raise DataError(f"{path}: expected whole records of {n_bytes} bytes, found {content.size}")
    return content.reshape(-1, n_bytes)


def checked_labels(path: Path, labels: UInt8[np.ndarray, " examples"]) -> UInt8[np.ndarray, " examples"]:
    """The labels of `path`; DataError if one is not below `N_CLASSES`."""
    if labels.size and labels.max() >= N_CLASSES:
        raise DataError(f"{path}: expected labels below {N_CLASSES}, found {labels.max()}")
    return labels
