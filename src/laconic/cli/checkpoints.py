"""`laconic compress` and `laconic decompress`: checkpoints of any size to files and back, with a bar."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.cli.tables import bytes_bar
from laconic.errors import MismatchError
from laconic.file.container import Reader
from laconic.file.contents import export
from laconic.file.save_load import save
from laconic.file.workers import FileOptions
from laconic.formats.checkpoints import Checkpoint, files_of, open_checkpoint
from laconic.model.selectors import matches
from laconic.quantization.grid import Grid


def encode(checkpoint: Path, output: Path, quantizer: Grid | None, threads: int | None, **options: Any) -> str:
    """Code a checkpoint, going on where the same command was interrupted.

    Args:
        checkpoint: the file or folder to read.
        output: the file to write.
        quantizer: rounds the tensors that compress; None codes all exactly.
        threads: how many work at once; None for as many as there are cores.
        options: others, as `laconic.save` has them.

    Returns:
        A line that says what came of it.
    """
    state = open_checkpoint(checkpoint)
    specs = state.specs if isinstance(state, Checkpoint) else state
    n_before = sum(spec.numel() * spec.element_size() for spec in specs.values())
    if Path(f"{output}.part").exists():
        print(f"going on from {output}.part", file=sys.stderr)
    with bytes_bar(f"Coding {checkpoint}", n_before) as done:
        work = FileOptions(threads, done, resume=_identity(checkpoint))
        n_bytes = save(state, output, quantizer, work=work, **options)
    line = (
        f"{output}: {n_bytes:,} bytes, {n_before / n_bytes:.1f} times smaller than the "
        f"{n_before:,} bytes of {len(specs)} tensors"
    )
    if quantizer is None:
        return f"{line}, exactly"
    return f"{line}; ‖w − ŵ‖ ≤ {quantizer.relative_error:g} ‖w‖ of each"


def decode(
    file: Path, output: Path, only: Sequence[str], max_bytes: int | None, threads: int | None, **options: Any
) -> str:
    """Decode a file to safetensors.

    Args:
        file: the file to read.
        output: the file to write.
        only: selectors of the tensors to decode; none for all.
        max_bytes: the most bytes to decode to; None for the reader's own limit.
        threads: how many work at once; None for as many as there are cores.
        options: others, as `laconic.file.export` has them.

    Returns:
        A line that says what came of it.
    """
    with Reader(file) as reader:
        names = _chosen(reader, only)
        reader.check_limit(names, max_bytes)
        n_bytes = sum(reader.entries[name].spec.n_bytes for name in names)
        with bytes_bar(f"Decoding {file}", n_bytes) as done:
            written = export(reader, output, names, work=FileOptions(threads, done), **options)
    what = output if len(written) == 1 else f"{written[-1]} and {len(written) - 1} shards"
    return f"{what}: {len(names)} tensors, {sum(path.stat().st_size for path in written):,} bytes"


def _chosen(reader: Reader, only: Sequence[str]) -> list[str]:
    for selector in only:
        if not any(matches(selector, name) for name in reader.entries):
            raise MismatchError(f"{reader.path}: expected a tensor that matches {selector!r}, found none")
    return [name for name in reader.entries if not only or any(matches(selector, name) for selector in only)]


def _identity(checkpoint: Path) -> str:
    """What tells this input from another without reading it: its files' names, lengths and times."""
    stats = [(path.name, path.stat()) for path in files_of(checkpoint)]
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
