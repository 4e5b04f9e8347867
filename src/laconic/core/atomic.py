"""Writing a file whole or not at all, and only in place of a file or of nothing.

A draft takes the file's name, which would replace a device, a pipe or a link, not write into it; so these are refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from laconic.errors import OutputError

MIN_ADVISED_BYTES = 1 << 20
MAX_PREFIX = 40  # characters of a name that its draft's repeats, so that a long name's draft is not too long
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_output(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise OutputError if `path` is no file that may be replaced: something other than a file, or one of `inputs`."""
    target = Path(path)
    try:
        found = target.lstat()
    except FileNotFoundError:
        return
    expected = f"{target}: expected a file to write"
    if stat.S_ISLNK(found.st_mode):
        raise OutputError(f"{expected}, found a link to {target.readlink()}; name that instead")
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{expected}, found {next((what for is_, what in _KINDS if is_(found.st_mode)), 'no file')}")
    for source in map(Path, inputs):
        if source.exists() and target.samefile(source):
            raise OutputError(f"{expected} other than the input, found {source}")


@contextmanager
def named(path: str | os.PathLike[str]) -> Generator[None]:
    """Errors of the system inside the block that name no file, as of a full disk, or a draft of `path` name `path`."""
    try:
        yield
    except OSError as error:
        is_draft = Path(os.fsdecode(error.filename or "")).name.startswith(_prefix(path))
        if error.errno is not None and (error.filename is None or is_draft):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def _prefix(path: str | os.PathLike[str]) -> str:
    return f".{Path(path).name[:MAX_PREFIX]}."


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A binary file that takes `path`'s name once the block ends well; else `path` stays as it was."""
    check_output(path)
    target = Path(path)
    with named(path):
        handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=target.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.umask(mask := os.umask(0))
            draft.chmod(0o666 & ~mask)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def begin_to_store(file: BinaryIO, n_bytes: int) -> None:
    """Ask the system, if it can, to store the last `n_bytes` written meanwhile, so that fsync waits less."""
    if n_bytes >= MIN_ADVISED_BYTES and hasattr(os, "posix_fadvise"):
        file.flush()
        with suppress(OSError):  # only advice; Linux begins to write what it may forget, and does not wait
            os.posix_fadvise(file.fileno(), file.tell() - n_bytes, n_bytes, os.POSIX_FADV_DONTNEED)
