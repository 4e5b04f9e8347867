"""The errors of Laconic: each names the place, what was expected and what was found."""

from __future__ import annotations


class LaconicError(Exception):
    """Base of every error that Laconic raises for bad input."""


class FormatError(LaconicError):
    """A file is not a valid `.lac` file: foreign, truncated, corrupt, or with trailing bytes."""


class CheckpointError(LaconicError, ValueError):
    """A file is no checkpoint, or not one of the model at hand."""


class DataError(LaconicError, ValueError):
    """A data file is not what its format says."""


class DownloadError(LaconicError, OSError):
    """A data file could not be downloaded."""


class OutputError(LaconicError, OSError):
    """What is to be written is a device, a pipe, a link or a folder, or is what is read."""


class UnsupportedError(LaconicError):
    """A valid file, a tensor or a model asks for something this version does not know or cannot do."""


class LimitError(LaconicError):
    """Decoding would need more memory than the caller allows."""


class MismatchError(LaconicError, ValueError):
    """Names, shapes or types differ from those of the model or of each other."""


class NonFiniteError(LaconicError, ValueError):
    """A tensor to be quantised or ranked holds NaN or infinity."""


class CollapseError(LaconicError, ValueError):
    """Pruning would leave a layer without weights, so that the network's outputs would be constant."""


def check_type(place: str, found: object, kind: type, hint: str = "") -> None:
    """MismatchError if `found` is not of a kind: a string, a number, or a class instead of its instance."""
    if isinstance(found, kind):
        return
    named = f"the class {found.__name__}; {found.__name__}()?" if isinstance(found, type) else repr(found)
    raise MismatchError(f"{place}: expected a {kind.__name__}, found {named}{f'; {hint}?' if hint else ''}")
