"""Members of groups that nothing reads: their removal changes no output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from laconic.model.modules import unwrap
from laconic.surgery.coupling import Coupling, Group
from laconic.surgery.plan import Plan


def dead_channels(coupling: Coupling, model: nn.Module) -> Plan:
    """The plan that cuts the channels, neurons or heads that no weight reads.

    Such a member is produced, but the weights of all layers that take it are zero. Cutting it leaves the
    network's outputs as they are, to the last bit but for the order of sums. One member of each group stays.

    Args:
        coupling: the model's groups, see `channels` and `heads`.
        model: the model, with its zeros in place.
    """
    state = unwrap(model).state_dict()
    groups = [group for group in coupling.groups if not group.bypassed]
    return Plan.keeping([(group, _read(group, state)) for group in groups], model)


def _read(group: Group, state: dict[str, Tensor]) -> Tensor:
    """(members,) whether some layer has a weight on it; the first where none is."""
    read = torch.zeros(group.n, dtype=torch.bool)
    takes = [part for part in group.parts if part.axis > 0]
    for part in takes:
        weight = state[part.tensor]
        along = (weight != 0).movedim(part.axis, 0).flatten(1).any(1).cpu()
        read |= along[part.index].any(1)
    if not takes:
        read[:] = True
    if not read.any():
        read[0] = True
    return read
