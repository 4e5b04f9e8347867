"""What the command line does with files: code checkpoints, decode files and list them, with a bar."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from laconic.codec.spec import Method
from laconic.core.text import elided, listed
from laconic.errors import MismatchError, OutputError
from laconic.file.container import Reader
from laconic.file.contents import export, shards
from laconic.file.save_load import State, save
from laconic.file.workers import FileOptions
from laconic.formats.checkpoints import TYPES, Checkpoint, open_checkpoint
from laconic.formats.parts import told
from laconic.model.selectors import BUFFER, matches, names_to_quantize
from laconic.quantization.grid import Grid, Quantizer, moments, widened
from laconic.quantization.rate import RateLoss, price_at, squared_error

# How parameters are named that are surely weights.
WEIGHT = re.compile(r"weight|bias|kernel|proj|lora|original\d?$")


@contextmanager
def bytes_bar(label: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar on standard error that counts up to `total` bytes, with their speed; yields what advances it."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda n_bytes: bar.advance(task, n_bytes)


# What users call the methods of the file.
CODED_AS = {"grid": "integers", "rows": "integers", "planes": "all bits", "exact": "all bits", "delta": "changes"}
SHORT_TYPES = {str(dtype).removeprefix("torch."): code for code, dtype in TYPES.items()}  # as in safetensors
GAP, MIN_NAME = 2, 20  # characters of a tensor's name


def inspection(found: dict[str, Any], long: bool = False, width: int = 80) -> Group:
    """A table of the tensors that `laconic.file.contents.inspect` found, and a line on the plan.

    Where names do not fit into `width` characters, tensors are listed by module, and what is still too long loses its
    middle. A long table has whole names, and the file's own words for how tensors are coded.
    """
    title = f"{found['file']}: {found['bytes']:,} bytes, {found['bits_per_weight']:.2f} bits a weight"
    if found["parent"]:
        title += f", with differences from {found['parent'][:12]}…"
    rows = [_row(tensor, long) for tensor in found["tensors"]]
    totals = [f"{found['weights']:,}", "", "", _percent(found["sparsity"]), f"{found['bits_per_weight']:.2f}"]
    totals.append(f"{found['bytes']:,}")
    headings = ["shape", "type", "coded as", "zeros", "bits/w", "bytes"]
    others = sum(
        max(map(len, cells)) + GAP for cells in zip(headings, totals, *(cells for _, cells in rows), strict=True)
    )
    table = Table(title=title, show_footer=True, box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    table.add_column("tensor", footer="all", overflow="fold")
    for heading, total in zip(headings, totals, strict=True):
        right = heading in ("zeros", "bits/w", "bytes")
        table.add_column(heading, footer=total, justify="right" if right else "left", overflow="fold")
    room = max(MIN_NAME, width - others - GAP)
    by_module = not long and any(len(name) > room for name, _ in rows)
    last = ""
    for name, cells in rows:
        module, rest = _in_module(name) if by_module else ("", name)
        if module and module != last:
            table.add_row(Text(elided(module, room), style="bold"))
        last = module
        shown = rest if long else elided(f" {rest}" if module else rest, room)
        table.add_row(Text(shown), *map(Text, cells))
    if (plan := found["plan"]) is None:
        return Group(table)
    blocks = "block" if len(plan["bypassed"]) == 1 else "blocks"
    removed = f"plan: {plan['elements_removed']:,} elements cut from {plan['tensors_cut']} tensors"
    return Group(table, f"{removed}, {len(plan['bypassed'])} {blocks} bypassed, in {plan['bytes']:,} bytes")


def _in_module(name: str) -> tuple[str, str]:
    """A tensor's module, up to the number of its layer if it has one, and the rest of its name."""
    found = re.match(r"(.*?\.\d+|[^.]+)\.(.+)", name)
    return (found[1], found[2]) if found else ("", name)


def _row(tensor: Mapping[str, Any], long: bool) -> tuple[str, list[str]]:
    """A tensor's name and the cells beside it."""
    method, dtype = str(tensor["method"]), str(tensor["dtype"])
    coded = ", ".join(filter(None, (method, tensor["model"]))) if long else CODED_AS.get(method, method)
    if tied_to := tensor["tied_to"]:
        coded = f"= {tied_to if long else elided(tied_to, MIN_NAME)}"
    return tensor["name"], [
        "×".join(map(str, tensor["shape"])) or "scalar",
        dtype if long else SHORT_TYPES.get(dtype, dtype),
        coded,
        _percent(tensor["sparsity"]),
        f"{tensor['bits_per_weight']:.2f}",
        f"{tensor['bytes']:,}",
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def parent(base: Path | None, key: str | None) -> State | None:
    """A parent by its path, or the part of its checkpoint that a key chooses; MismatchError for a key alone."""
    if base is None and key is not None:
        raise MismatchError(f"--base-key: expected with --base, found {key!r} alone")
    return base if base is None or key is None else open_checkpoint(base, key=key)


def encode(
    checkpoint: Path,
    output: Path,
    rounding: tuple[str, float] | None,
    threads: int | None,
    *,
    key: str | None = None,
    base: State | None = None,
    **options: Any,
) -> str:
    """Code a checkpoint, exactly or at a relative error, going on where that was interrupted; say what came of it."""
    state = open_checkpoint(checkpoint, key=key)
    quantizer = None if rounding is None else quantizer_of(*rounding, state, options["include"], options["exclude"])
    n_before = sum(spec.numel() * spec.element_size() for spec in state.specs.values())
    if Path(f"{output}.part").exists():
        print(f"going on from {output}.part", file=sys.stderr)
    with bytes_bar(f"Coding {checkpoint}", n_before) as done:
        # What tells this input from another without reading it: its files' names, lengths and times.
        stats = [(path.name, path.stat()) for path in state.files]
        identity = repr([key, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)])
        work = FileOptions(threads, done, resume=identity)
        n_bytes = save(state, output, quantizer, base=base, work=work, **options)
    error = ", exactly"
    if isinstance(quantizer, RateLoss):
        error = f", rounded at a price of {quantizer.price:.4g} bits a unit of squared error"
    elif isinstance(quantizer, Grid):
        error = f"; ‖w − ŵ‖ ≤ {quantizer.relative_error:g} ‖w‖ of each"
    before = f"the {n_before:,} bytes of {len(state)} tensors"
    said = [f"{output}: {n_bytes:,} bytes, {n_before / n_bytes:.1f} times smaller than {before}{error}"]
    with Reader(output) as reader:
        methods = {name: entry.spec.method for name, entry in reader.entries.items()}
    if quantizer and not options["include"]:
        said += _doubtful(state, methods, options["exclude"])
    if base is not None:
        n = sum(method is Method.DELTA for method in methods.values())
        said.append(f"coded by their difference from the parent: {n or 'none'} of {len(state)} tensors")
    if state.left_out:
        hint = "; --key chooses another part" if max(state.left_out.values()) > 1 else ""
        said.append(f"left out: {told(state.left_out)}{hint}")
    if sys.stdout.isatty():
        unknown = "" if quantizer is None else "; what it scores is judged with --data"
        said.append(f"load it: laconic.load({str(output)!r}, into=model){unknown}")
    return "\n".join(said)


def quantizer_of(
    rounding: str, error: float, state: Checkpoint, include: Iterable[str] | None, exclude: Iterable[str]
) -> Quantizer:
    """What rounds a checkpoint at a relative error: of its largest layer, or of all together."""
    if rounding == "grid":
        return Grid(error)
    sizes = {name: state.specs[name].numel() for name in names_to_quantize(state.specs, include, exclude)}
    energy = sum(moments(widened(state[name]).numpy())[0] for name in sizes)
    price = price_at(error**2 * energy, sum(sizes.values())) if 0 < energy < math.inf else 1.0
    return RateLoss(price, squared_error)


def _doubtful(state: Checkpoint, methods: Mapping[str, Method], exclude: Iterable[str]) -> list[str]:
    """Which tensors were taken for weights or for buffers by no more than their names."""
    may_be_rounded = names_to_quantize(state.specs, None, exclude)
    matrices = [name for name, spec in state.specs.items() if spec.ndim > 1 and spec.is_floating_point()]
    rounded = [name for name in matrices if name in may_be_rounded and methods[name] in (Method.GRID, Method.DELTA)]
    doubtful = {
        "rounded, though not named as weights": [name for name in rounded if not WEIGHT.search(name)],
        "kept exactly, being named as buffers": [name for name in matrices if BUFFER.fullmatch(name)],
    }
    hints = ("; --exclude keeps them exactly", "")
    # One name for all layers.
    found = [dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names) for names in doubtful.values()]
    return [f"{what}: {listed(names)}{hint}" for what, names, hint in zip(doubtful, found, hints, strict=True) if names]


def decode(
    file: Path, output: Path, only: Sequence[str], limit: int | None, threads: int | None, **options: Any
) -> str:
    """Decode a file, or the tensors that selectors name, to safetensors; say what came of it."""
    force = options.pop("force")
    with Reader(file) as reader:
        for selector in only:
            if not any(matches(selector, name) for name in reader.entries):
                raise MismatchError(f"{reader.path}: expected a tensor that matches {selector!r}, found none")
        names = [name for name in reader.entries if not only or any(matches(selector, name) for selector in only)]
        reader.check_limit(names, limit)
        existing = [path for path in shards(reader, output, names, options["shard_bytes"]) if path.exists()]
        if existing and not force:
            raise OutputError(f"{existing[0]} exists; add --force to replace it")
        n_bytes = sum(reader.entries[name].spec.n_bytes for name in names)
        with bytes_bar(f"Decoding {file}", n_bytes) as done:
            written = export(reader, output, names, work=FileOptions(threads, done), **options)
    what = output if len(written) == 1 else f"{written[-1]} and {len(written) - 1} shards"
    return f"{what}: {len(names)} tensors, {sum(path.stat().st_size for path in written):,} bytes"
