"""What each of two processes runs for the tests of distributed training; spawned, so it stands in a module."""

import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def spawn(work):
    """Run `work(rank)` in two processes of one gloo group; what each returns, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_run, (folder, sys.path, work), nprocs=2)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _run(rank, folder, path, work):
    sys.path[:] = path
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(work(rank), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def masks_that_differ(rank):
    from laconic.pruning.mask import Mask, broadcast_mask

    draw = torch.Generator().manual_seed(rank)
    mine = Mask({name: torch.rand(shape, generator=draw) < 0.5 for name, shape in {"a": (7, 5), "b": (3,)}.items()})
    return dict(mine), dict(broadcast_mask(mine))


def trainings(rank):
    """Train under rules with data, and first masks, of each rank's own: by rule, the state and mask at the end."""
    import laconic

    inputs = torch.randn(30, 32, 10, generator=torch.Generator().manual_seed(rank))
    seen = [(inputs[0], inputs[0, :, :4].argmax(1))]
    observe = partial(laconic.model.observe, batches=seen, needs=[laconic.model.Statistic.FISHER])
    mask = laconic.pruning.Pruner(laconic.pruning.criteria.random(rank)).at(0.5).mask(_network())
    rules = {
        "hold": laconic.training.Hold(mask),
        "gradual": laconic.training.Gradual(
            laconic.training.Schedule(0.7, end=20), 5, laconic.pruning.Pruner(laconic.pruning.criteria.fisher), observe
        ),
        "RigL": laconic.training.DropAndGrow(mask, laconic.training.Schedule(0.3, end=25), every=3),
        "gates": laconic.training.Gates(1.0, 1000),
        "noisy": laconic.mdl.NoisyWeights(1000, lambda _: 1.0, initial=-4.0, local=True),
        "share": laconic.training.SharedValues(),
    }
    return {name: _trained(rule, inputs) for name, rule in rules.items()}


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 4))


def _trained(rule, inputs):
    from laconic import attach

    model = _network()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=1e-2)
    with attach(rule, wrapped, optimizer) as attached:
        for batch in inputs:
            optimizer.zero_grad()
            cross_entropy(wrapped(batch), batch[:, :4].argmax(1)).backward()
            optimizer.step()
        return {n: t.clone() for n, t in model.state_dict().items()}, dict(attached.mask)
