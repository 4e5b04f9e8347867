import gzip
import hashlib
import http.server
import sys
import tarfile
import threading
from functools import partial

import numpy as np
import pytest

from laconic.datasets.files import DataError, DownloadError, Source, checked_labels, located, read_idx, read_records

IDX = bytes([0, 0, 8, 2]) + bytes([0, 0, 0, 3]) + bytes([0, 0, 0, 2]) + bytes(range(6))
WHOLE = gzip.compress(IDX, mtime=0)


def test_idx_reads_what_numpy_would(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(WHOLE)
    assert np.array_equal(read_idx(path, (2,)), np.arange(6).reshape(3, 2))


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (IDX, "expected a whole gzip file"),
        (WHOLE[:-9], "expected a whole gzip file"),
        (WHOLE[:12] + b"\xff\xff" + WHOLE[14:], "expected a whole gzip file"),
        (gzip.compress(b"", mtime=0), "expected magic 00000802, found $"),
        (gzip.compress(bytes([0, 0, 13, 2]) + IDX[4:], mtime=0), "expected magic 00000802, found 00000d02"),
        (gzip.compress(bytes([0, 0, 8, 1]) + IDX[4:], mtime=0), "expected magic 00000802, found 00000801"),
        (gzip.compress(IDX[:9], mtime=0), "expected a header of 12 bytes, found 9"),
        (gzip.compress(IDX[:11] + b"\3" + IDX[12:], mtime=0), r"examples of shape \(2,\), found \(3,\)"),
        (gzip.compress(IDX[:-1], mtime=0), r"expected 6 bytes for \(3, 2\), found 5"),
        (gzip.compress(IDX + b"\0", mtime=0), r"expected 6 bytes for \(3, 2\), found 7"),
        (gzip.compress(IDX[:4] + b"\xff" * 4 + IDX[8:], mtime=0), r"expected 8589934590 bytes"),
    ],
)
def test_idx_refuses_malformed_files_by_name(tmp_path, content, finding):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=finding) as caught:
        read_idx(path, (2,))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_records_are_whole_and_labels_in_range(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(6)))
    assert read_records(path, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match="whole records of 4 bytes, found 6"):
        read_records(path, 4)
    with pytest.raises(DataError, match="labels below 10, found 10"):
        checked_labels(path, np.array([9, 10], np.uint8))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="found 0"):
        read_records(path, 3)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A source whose archive a local server offers, with an empty cache to download into."""
    offered = tmp_path / "offered"
    (offered / "inner").mkdir(parents=True)
    (offered / "inner" / "a.bin").write_bytes(b"abc")
    (offered / "plain.gz").write_bytes(b"plain")
    with tarfile.open(offered / "all.tar.gz", "w:gz") as archive:
        archive.add(offered / "inner" / "a.bin", "inner/a.bin")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=offered))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LACONIC_DATA", raising=False)
    url = f"http://127.0.0.1:{server.server_port}"
    files = ("all.tar.gz", "plain.gz")
    md5s = {f"{url}/{f}": hashlib.md5((offered / f).read_bytes()).hexdigest() for f in files}
    yield Source("toy", ("inner/a.bin", "plain.gz"), md5s)
    server.shutdown()
    server.server_close()


def test_unset_variable_downloads_checks_and_unpacks(served):
    pytest.importorskip("pooch")
    assert [path.read_bytes() for path in located(served)] == [b"abc", b"plain"]


def test_failed_download_says_what_to_do_in_one_line(served):
    pytest.importorskip("pooch")
    tampered = Source(served.folder, served.files, dict.fromkeys(served.md5s, "0" * 32))
    absent = Source(served.folder, served.files, {f"{url}.no": "0" * 32 for url in served.md5s})
    for source in (tampered, absent):
        with pytest.raises(DownloadError, match="LACONIC_DATA") as caught:
            located(source)
        assert "\n" not in str(caught.value)


def test_missing_pooch_names_the_extra(served, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "laconic-nn\[demo\]"'):
        located(served)


def test_set_variable_never_downloads(served, tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"toy/inner/a\.bin.*unset LACONIC_DATA"):
        located(served)
