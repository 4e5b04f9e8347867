"""Couplings: what must be cut together, as pure data.

Removing a filter removes its bias, its normalisation, and the column of every layer that reads it; a residual sum makes
all its summands lose the same channels (Fang et al. 2023, DepGraph). A *group* is a set of such members. It states in
which tensors, along which axes and at which positions each member lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor, nn

from laconic.errors import UnsupportedError

RETURNS_TENSOR = 0  # how a block returns: a tensor, not a tuple


@dataclass(frozen=True, eq=False)
class Part:
    """Where a group's members lie in one tensor.

    Attributes:
        tensor: the (first) name of a parameter or buffer in the model's state_dict.
        axis: the axis along which members lie.
        index: the positions along the axis that belong to each member.
    """

    tensor: str
    axis: int
    index: Int64[Tensor, "members width"]


@dataclass(frozen=True, eq=False)
class Group:
    """What lives and dies together: member i is row i of every part's index.

    Attributes:
        name: name of the first module that produces the members, of the attention, or of the residual block.
        parts: where the members lie.
        settings: (module, attribute, per member): integers that count members and do not follow from a tensor's shape.
            An attribute's new value is the number of members kept × `per member`.
        bypassed: the residual block that is replaced when its single member goes; empty for other groups.
        n_returned: what that block returns: `RETURNS_TENSOR`, or the length of a tuple that begins with the tensor.
    """

    name: str
    parts: tuple[Part, ...]
    settings: tuple[tuple[str, str, int], ...] = ()
    bypassed: str = ""
    n_returned: int = RETURNS_TENSOR

    @property
    def n(self) -> int:
        """Number of members."""
        return len(self.parts[0].index)


@dataclass(frozen=True, eq=False)
class Coupling:
    """The groups of a model, each tried out, and what cannot be cut.

    Attributes:
        groups: groups whose members may go in any combination that leaves one of each group (a block may go itself).
        refused: name → why its members cannot be cut.
    """

    groups: tuple[Group, ...]
    refused: Mapping[str, str]


def check_cuttable(model: nn.Module) -> None:
    """UnsupportedError where a model has lazy or parametrised tensors."""
    for name, module in model.named_modules():
        if hasattr(module, "parametrizations"):
            raise UnsupportedError(f"{name}: expected plain parameters, found parametrisations; remove them first")
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise UnsupportedError(f"{name}: not initialised yet; run the model once first")
