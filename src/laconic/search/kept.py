"""Attempts kept in a folder, for an interrupted search and for the next target of the same network.

The prices that a search asks for depend only on what it measured so far, so a search that finds some of its attempts in
the folder ends with the same file as one that makes them all. A file depends on the network, the data, how it was
written and, if it was trained, on the training and on the file that it began from. Its measurement also depends on the
judge, who is told by what the network itself gets from him.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from laconic import __version__
from laconic.core.atomic import atomic
from laconic.datasets.adapter import seeded
from laconic.description.ledger import Measurement
from laconic.errors import FormatError, MismatchError
from laconic.model.evidence import Evidence
from laconic.model.modules import map_tensors, raw_bytes
from laconic.model.objective import Batches, n_batches
from laconic.search.targets import How
from laconic.training.checkpoint import load_state, save_state
from laconic.training.loop import Training

INDEX, EVIDENCE = "attempts.json", "evidence.safetensors"
OWN_FILES = re.compile(rf"({'|'.join(get_args(How))})-.*\.(lac|part|cut)")


@dataclass
class Kept:
    """A folder with files, what judges measured of them, and the observation of the data.

    Attributes:
        folder: it is made if it is not there.
        of: the network and data that everything in the folder is of.
        judge: whose measurements are read and added.

    Raises:
        MismatchError: the folder is of another network, data or version, or holds other files.
    """

    folder: Path
    of: str
    judge: str
    _measured: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)  # by judge, by file

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.of += f", Laconic {__version__}"
        index = self.folder / INDEX
        if index.exists():
            try:
                kept = json.loads(index.read_bytes())
                found, measured = str(kept["of"]), dict(kept.get("measured", {}))
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(f"{index}: expected a list of attempts, found {error!r}") from error
            if found != self.of:
                expected = f"expected attempts at this network on these data, found another's: {found}, not {self.of}"
                raise MismatchError(f"{self.folder}: {expected}; name another folder, or remove it to start anew")
            self._measured = measured
            return
        if others := sorted(path.name for path in self.folder.iterdir() if path.name[:1] != "."):
            raise MismatchError(f"{self.folder}: expected a folder of attempts, or an empty one, found {others[0]}")
        self._write()

    def file(self, how: How, price: float, finetune: Training | None = None, start: Path | None = None) -> Path:
        """Where the file of an attempt is, or will be; for a trained one, how it is trained and from which file."""
        name = f"{how}-{price!r}"
        if finetune and start:
            # Functions are told apart by name: their addresses change from process to process.
            described = re.sub(r" at 0x[0-9a-f]+", "", repr(finetune))
            name += "-" + hashlib.sha256(f"{described} {start.name}".encode()).hexdigest()[:16]
        return self.folder / f"{name}.lac"

    def measured(self, path: Path) -> Measurement | None:
        """What the judge measured of a file; None if he did not yet."""
        found = self._measured.get(self.judge, {}).get(path.name)
        return None if found is None or not path.exists() else Measurement.from_dict(found)

    def add(self, path: Path, measured: Measurement) -> None:
        """Keep what the judge measured of a file."""
        self._measured.setdefault(self.judge, {})[path.name] = measured.to_dict()
        self._write()

    def evidence(self, observed: Callable[[], Evidence]) -> Evidence:
        """The observation that is kept, or else the one that is made now, which is kept."""
        path = self.folder / EVIDENCE
        if path.exists():
            return Evidence.from_state(load_state(path))
        evidence = observed()
        save_state(path, evidence.to_state())
        return evidence

    def remove(self) -> None:
        """Remove what was kept, and the folder unless others put files into it."""
        for path in self.folder.iterdir():
            if path.name in (INDEX, EVIDENCE) or OWN_FILES.fullmatch(path.name):
                path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _write(self) -> None:
        with atomic(self.folder / INDEX) as file:
            file.write(json.dumps({"of": self.of, "measured": self._measured}, indent=2).encode())


def data_identity(batches: Batches) -> str:
    """What tells data apart at the cost of two batches: their number, and the first one if it does not change."""
    drawn: list[str] = []
    for _ in range(2):
        with seeded(0):
            drawn.append(_digest(next(iter(batches), None)))
    first = drawn[0] if drawn[0] == drawn[1] else "drawn at random"
    return f"{n_batches(batches)} batches, the first {first}"


def _digest(batch: Any) -> str:
    whole = hashlib.sha256()

    def add(part: Tensor | PackedSequence) -> None:
        tensor = part.data if isinstance(part, PackedSequence) else part
        whole.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(raw_bytes(tensor.detach().cpu()))

    map_tensors(add, batch)
    return whole.hexdigest()[:16]
