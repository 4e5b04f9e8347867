"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MIN_ADVISED_BYTES = 1 << 20


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A binary file that takes `path`'s name once the block ends well; else `path` stays as it was."""
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
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
