import errno
import os
import socket

import pytest

from laconic.core.atomic import atomic, check_output
from laconic.errors import OutputError


def written(path):
    with atomic(path) as file:
        file.write(b"new")
    return path.read_bytes()


@pytest.fixture
def server():
    with socket.socket(socket.AF_UNIX) as found:
        yield found


def test_files_and_nothing_are_replaced(tmp_path):
    assert written(tmp_path / "a") == written(tmp_path / "a") == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "kind", ["a pipe", "a socket", "a folder", "a link to other", "a link to nowhere", "a link to folder"]
)
def test_what_is_no_file_is_refused_and_stays(tmp_path, kind, server, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = tmp_path / "out"
    (tmp_path / "other").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    match kind.split():
        case ["a", "pipe"]:
            os.mkfifo(path)
        case ["a", "socket"]:
            server.bind("out")
        case ["a", "folder"]:
            path.mkdir()
        case [*_, target]:
            path.symlink_to(target)
    before = path.lstat().st_ino, path.lstat().st_mtime_ns
    with pytest.raises(OutputError, match=f"out: expected a file to write, found {kind}"):
        written(path)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == before
    assert {p.name for p in tmp_path.iterdir()} == {"out", "other", "folder"}
    assert (tmp_path / "other").read_bytes() == b"old"


def test_a_file_in_a_folder_behind_a_link_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert written(tmp_path / "link" / "a") == b"new"


def test_an_output_that_is_the_input_is_refused_under_any_name(tmp_path):
    source = tmp_path / "in"
    source.write_bytes(b"old")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "hard").hardlink_to(source)
    for output, inputs in ((source, [source]), (source, [tmp_path / "link"]), (tmp_path / "hard", ["x", source])):
        with pytest.raises(OutputError, match=f"{output.name}: expected a file to write other than the input"):
            check_output(output, inputs)
    check_output(tmp_path / "another", [source])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_errors_of_the_system_name_the_file(tmp_path, code):
    def fail():
        with atomic(tmp_path / "a"):
            raise OSError(code, os.strerror(code))

    with pytest.raises(OSError) as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_errors_about_other_files_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic(tmp_path / "a"):
        (tmp_path / "b").read_bytes()
    assert caught.value.filename == str(tmp_path / "b")


def test_names_that_are_as_long_as_can_be(tmp_path):
    assert written(tmp_path / ("n" * 255)) == b"new"
    for path in (tmp_path / ("n" * 256), tmp_path / "no" / "a"):
        with pytest.raises(OSError) as caught:
            written(path)
        assert caught.value.filename == str(path)
