"""Evidence: what data say about each weight, gathered in one pass.

A criterion names the statistics it needs; `observe` gathers exactly these, each example once, and leaves the model
unchanged. This is the only place where hooks look into a model's layers.

Sums are over the positions at which a layer is applied (tokens, pixels), means over examples:

- ``GRADIENT``: ∂L/∂w, the mean over examples.
- ``FISHER``: E[(∂L/∂w)²], the diagonal of the empirical Fisher matrix; each example is run by itself.
- ``NORM``: ‖X_j‖₂ = √(Σ x_j²) over all examples, for each input j of a weight (Wanda; Sun et al. 2024).
- ``GRAM``: E[Σ x xᵀ], for the inputs of a layer; a convolution's are its unfolded patches. Layers of more inputs than
  `max_inputs` have one for each block of them.
- ``SENSITIVITY``: E[δ²], with δ = ∂L/∂y at each output y of a layer, the mean over positions too. With the Gram matrix
  it makes a Kronecker-factored Fisher matrix, diagonal in the outputs (Martens & Grosse 2015).
- ``MOVEMENT``: −Σ w·∂L/∂w over the steps of a training (Sanh et al. 2020); no pass over data gives it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.errors import MismatchError
from laconic.model.modules import eval_mode, n_examples, refuse_uninitialized, sliced, unwrap
from laconic.model.objective import DEFAULT_OBJECTIVE, Objective, check_batches
from laconic.model.tasks import IGNORED
from laconic.model.uses import PLAIN, Form, Notes, Use, Watch, eagerly, from_rows


class Statistic(Enum):
    """A statistic of weights; the module's docstring has the formulas."""

    GRADIENT = auto()
    FISHER = auto()
    NORM = auto()
    GRAM = auto()
    SENSITIVITY = auto()
    MOVEMENT = auto()


GRADIENT, FISHER, NORM, GRAM, SENSITIVITY, MOVEMENT = Statistic
OF_INPUTS = {NORM, GRAM}
BITS_PER_NAT = 1 / math.log(2)  # losses are in nats
OF_TABLES = 16  # times that a vocabulary's relative error counts: it is all of the input, and often the output too
# A wider layer has several Gram matrices, for blocks of inputs that are taken as uncorrelated. A layer of few rows may
# have as many elements of them a weight as one of many rows and MIN_INPUTS inputs, so that it does not decide the cost.
MAX_INPUTS, MIN_INPUTS, ELEMENTS_PER_WEIGHT = 8192, 1024, 64
OF_LAYERS = {*OF_INPUTS, SENSITIVITY}


@dataclass(frozen=True)
class Evidence:
    """Statistics by kind and by weight's name.

    Attributes:
        n: number of examples.
        found: the statistics of each weight: gradient, Fisher and movement have its shape; the norm broadcasts with it;
            the Gram matrix is (groups, d, d), for rows of d inputs that are divided evenly among groups; the
            sensitivity (rows,).
        forms: how a weight's rows meet its Gram matrix, where not in the plain way.
        elsewhere: for weights that enter no product with inputs, what they enter.
        tables: weights whose rows are looked up, such as a vocabulary's.
    """

    n: int = 0
    found: Mapping[Statistic, Mapping[str, Tensor]] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    tables: frozenset[str] = frozenset()
    _damped: dict[tuple[str, float], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        found = ", ".join(f"{statistic.name} of {len(weights)} weights" for statistic, weights in self.found.items())
        return f"Evidence({found or 'none'}, from {self.n:,} examples)"

    def of(self, statistic: Statistic, name: str) -> Tensor:
        """One weight's statistic; MismatchError if it was not gathered, or that weight has none."""
        if statistic not in self.found:
            kinds = ", ".join(found.name for found in self.found) or "none"
            raise MismatchError(f"evidence: expected {statistic.name}, found {kinds}; see observe()")
        if name not in self.found[statistic]:
            why = f"it enters {self.elsewhere[name]}" if name in self.elsewhere else "is its layer used?"
            hint = "remove the parametrisation, or exclude it" if "parametrizations." in name else "exclude it"
            raise MismatchError(f"{name}: expected its {statistic.name}, found none: {why}; else {hint}")
        return self.found[statistic][name]

    def counts(self, name: str) -> int:
        """How often a weight's relative error counts beside those of layers in the network's midst."""
        return OF_TABLES if name in self.tables else 1

    def form(self, name: str) -> Form:
        """How a weight's rows meet its Gram matrix."""
        return self.forms.get(name, PLAIN)

    def rows(self, name: str, weight: Tensor) -> Shaped[Tensor, "groups rows d"]:
        """A weight's rows, as its Gram matrix has them."""
        return self.form(name).rows(weight, *self.of(GRAM, name).shape[:2])

    def damped(self, name: str, fraction: float = 0.01) -> Float[Tensor, "groups d d"]:
        """A weight's Gram matrix on the CPU, made invertible by `damped`; computed once."""
        if (name, fraction) not in self._damped:
            self._damped[name, fraction] = damped(self.of(GRAM, name).cpu(), fraction)
        return self._damped[name, fraction]

    def to_state(self) -> dict[str, Any]:
        """Tensors and plain values, nested, as training checkpoints hold them."""
        return {
            "n": self.n,
            "found": {statistic.name: dict(found) for statistic, found in self.found.items()},
            "forms": {name: [form.step, form.width] for name, form in self.forms.items()},
            "elsewhere": dict(self.elsewhere),
            "tables": sorted(self.tables),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Evidence:
        """The inverse of `to_state`."""
        found = {Statistic[name]: of_weights for name, of_weights in state["found"].items()}
        forms = {name: Form(*form) for name, form in state["forms"].items()}
        return cls(state["n"], found, forms, state["elsewhere"], frozenset(state["tables"]))


NO_EVIDENCE = Evidence()
_Rows: TypeAlias = tuple[int, int, int]  # a range of rows, and the number of groups that they are divided among


def observe(
    model: nn.Module, batches: Iterable[Any], needs: Collection[Statistic], objective: Objective = DEFAULT_OBJECTIVE
) -> Evidence:
    """Gather statistics of `model`'s weights, also of frozen ones, in one pass over `batches` in evaluation mode.

    Args:
        model: any module.
        batches: see `laconic.model.Objective`; the first axis counts examples.
        needs: what to gather: a criterion's or a pruner's `needs`. Without any, nothing is run.
        objective: the loss in nats; with ``Objective(sampled_labels)`` the Fisher statistics are those of the model's
            own distribution.

    Raises:
        MismatchError: `MOVEMENT` is asked for, or there are no batches, or they do not fit the objective.
    """
    needs = set(needs)
    if MOVEMENT in needs:
        raise MismatchError("evidence: MOVEMENT comes from training under a rule, not from a pass over data")
    if not needs:
        return NO_EVIDENCE
    check_batches(batches, "evidence", once=True)
    model = unwrap(model)
    seen = _Sums(model, needs)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(_gradients(model) if needs - OF_INPUTS else torch.no_grad())
        stack.enter_context(eagerly())
        watch = stack.enter_context(Watch(model, seen.note)) if needs & OF_LAYERS else None
        answer = stack.enter_context(objective.on(model))
        for batch in batches:
            for part in _examples(batch) if FISHER in needs else [batch]:
                if needs <= OF_INPUTS:
                    seen.n += objective.forward(model, part)
                else:
                    seen.count(answer, part)
    if not seen.n:
        raise MismatchError("evidence: expected batches to observe, found none")
    return seen.evidence(watch.notes if watch else Notes())


def sampled_labels(outputs: Float[Tensor, "n ..."], targets: object) -> Tensor:
    """Cross-entropies, in nats, of labels drawn from the model's own distribution, where those of `targets` count.

    Classes are the last axis where `targets` has the shape of all others, else axis 1. On data that a model has
    memorised, gradients vanish; those of sampled labels do not, and their second moment is the Fisher matrix itself
    (Kunstner et al. 2019). Draws from PyTorch's generator.
    """
    shape = targets.shape if isinstance(targets, Tensor) else None
    outputs = outputs.movedim(-1, 1) if shape == outputs.shape[:-1] else outputs
    chances = outputs.detach().movedim(1, -1).softmax(-1)
    labels = torch.multinomial(chances.flatten(0, -2), 1).reshape(chances.shape[:-1])
    if isinstance(targets, Tensor) and shape == labels.shape:
        labels = labels.masked_fill(targets == IGNORED, IGNORED)
    return F.cross_entropy(outputs, labels, reduction="none")[labels != IGNORED]


def damped(grams: Float[Tensor, "groups d d"], fraction: float = 0.01) -> Float[Tensor, "groups d d"]:
    """Gram matrices in float64 with a fraction of their mean diagonal added, so that they can be inverted.

    An input that is always zero gets 1 instead, which does not affect its weights (SparseGPT; Frantar & Alistarh 2023).
    """
    grams = grams.double()
    diagonal = grams.diagonal(dim1=1, dim2=2)
    more = fraction * diagonal.mean(1, keepdim=True) + (diagonal == 0)
    return grams + torch.diag_embed(more.expand_as(diagonal))


class _Sums:
    """Sums over the examples so far."""

    def __init__(self, model: nn.Module, needs: set[Statistic]) -> None:
        self.n, self.needs = 0, needs
        self.parameters = dict(model.named_parameters())
        for name, parameter in self.parameters.items():
            refuse_uninitialized(name, parameter)
        self.sums: dict[Statistic, dict[str, Tensor]] = defaultdict(dict)  # in the weights' own shapes
        self.of_rows: dict[Statistic, dict[str, dict[_Rows, Tensor]]] = defaultdict(lambda: defaultdict(dict))
        self.forms: dict[str, set[tuple[int, int, int]]] = defaultdict(set)  # (rows, inputs, step), one if all is well
        self.n_running = 1  # examples of the forward pass
        self.n_labels = 1  # by whose number the mean loss divides the gradients of the sum

    def note(self, use: Use) -> None:
        """Add what passes through one use of a weight."""
        if self.needs & OF_INPUTS:
            x = use.inputs()
            x = x if x.dtype.itemsize >= 4 else x.float()
            self.forms[use.name].add((use.n_rows, x.shape[2], use.step))
            rows = (*use.rows, len(x))
            if GRAM in self.needs:
                of_blocks = _blocks(x, use.n_kernel, max_inputs(use.n_rows))
                self._add(self.of_rows[GRAM][use.name], rows, (of_blocks.mT @ of_blocks).double())
            if NORM in self.needs:
                self._add(self.of_rows[NORM][use.name], rows, x.square().sum(1).double())
        if SENSITIVITY in self.needs and use.output.requires_grad:
            positions, rows = use.n_positions / self.n_running, (*use.rows, 1)
            self.forms[use.name].add((use.n_rows, self.parameters[use.name].numel() // use.n_rows, use.step))

            def add(delta: Tensor) -> None:
                self._add(self.of_rows[SENSITIVITY][use.name], rows, use.squares(delta * self.n_labels) / positions)

            use.output.register_hook(add)

    def count(self, answer: Any, batch: Any) -> None:
        """Run a batch."""
        self.n_running = n_examples(batch) or 1
        answered = answer(batch)
        self.n += answered.n
        self.n_labels = int(answered.n_labels)
        gradients = torch.autograd.grad(answered.differentiable_loss, list(self.parameters.values()), allow_unused=True)
        for name, given in zip(self.parameters, gradients, strict=True):
            gradient = given.to_dense() if given is not None and given.is_sparse else given
            if gradient is not None and GRADIENT in self.needs:
                self._add(self.sums[GRADIENT], name, gradient.double() * self.n_labels)
            if gradient is not None and FISHER in self.needs:
                self._add(self.sums[FISHER], name, (gradient.double() * self.n_labels).square())

    @staticmethod
    def _add(sums: dict[Any, Tensor], key: Any, value: Tensor) -> None:
        sums[key] = sums[key] + value if key in sums else value

    def evidence(self, notes: Notes) -> Evidence:
        """Means, and what is known of weights that have none."""
        found = {
            statistic: {n: (v / self.n).float() for n, v in self.sums[statistic].items()} for statistic in self.needs
        }
        elsewhere = {name: f"{where}, which is no product with inputs" for name, where in notes.elsewhere.items()}
        elsewhere |= dict.fromkeys(notes.looked_up, "a table from which rows are looked up")
        forms_of = {
            name: Form(step, d if d > max_inputs(n) else 0)
            for name, forms in self.forms.items()
            for n, d, step in forms
        }
        for name, forms in self.forms.items():
            if len(forms) > 1:
                elsewhere[name] = "products both as it is and transposed"
                continue
            n_rows, d, step = next(iter(forms))
            for statistic in self.needs & {*OF_INPUTS, SENSITIVITY}:
                if parts := self.of_rows[statistic].get(name):
                    total = _joined(parts, n_rows)
                    weight = self.parameters[name]
                    if statistic is GRAM and name in notes.looked_up:
                        total = total + _as_a_table(forms_of[name], weight, total)
                    found[statistic][name] = (
                        _like(weight, total.sqrt(), d, step) if statistic is NORM else total / self.n
                    ).float()
        others = {name: form for name, form in forms_of.items() if form != PLAIN}
        statistics = {s: found[s] for s in Statistic if s in self.needs}
        return Evidence(self.n, statistics, others, elsewhere, frozenset(notes.looked_up))


def _as_a_table(form: Form, weight: Tensor, gram: Tensor) -> Tensor:
    """What a table's Gram matrix gains if its rows are looked up too: its relative error counts as much again."""
    groups, d, _ = gram.shape
    w = form.rows(weight.detach().double(), groups, d)
    outputs = ((w @ gram.to(w.device)) * w).sum() / w.square().sum().clamp(min=1e-300)
    return (outputs * torch.eye(d, dtype=torch.float64, device=w.device)).to(gram.device)


def max_inputs(n_rows: int) -> int:
    """The largest number of inputs of a Gram matrix, for a weight of so many rows."""
    return min(MAX_INPUTS, max(MIN_INPUTS, ELEMENTS_PER_WEIGHT * n_rows))


def _blocks(x: Float[Tensor, "groups positions d"], n_kernel: int, limit: int) -> Float[Tensor, "blocks positions w"]:
    """More inputs than a limit in blocks of whole channels, padded by zeros, each a group of its own."""
    d = x.shape[2]
    width = -(-d // (-(-d // limit) * n_kernel)) * n_kernel
    n_blocks = -(-d // width)
    return F.pad(x, (0, n_blocks * width - d)).unflatten(2, (n_blocks, width)).movedim(2, 1).flatten(0, 1)


def _examples(batch: Any) -> Iterator[Any]:
    for i in range(n_examples(batch) or 1):
        yield sliced(batch, slice(i, i + 1))


def _joined(parts: Mapping[_Rows, Tensor], n_rows: int) -> Tensor:
    """Sums of row ranges, for groups of equal size that together are all rows; (rows,) for sensitivities."""
    if next(iter(parts.values())).ndim == 1:
        total = torch.zeros(n_rows, dtype=torch.float64, device=next(iter(parts.values())).device)
        for (start, stop, _), value in parts.items():
            total[start:stop] += value
        return total
    sizes = [(stop - start) // groups for start, stop, groups in parts]
    size = math.gcd(n_rows, *sizes, *(start for start, _, _ in parts))
    (_, _, n_groups), first = next(iter(parts.items()))
    n_blocks = len(first) // n_groups
    total = torch.zeros(n_rows // size, n_blocks, *first.shape[1:], dtype=torch.float64, device=first.device)
    for (start, stop, groups), value in parts.items():
        of_groups = value.unflatten(0, (groups, n_blocks))
        total[start // size : stop // size] += of_groups.repeat_interleave((stop - start) // groups // size, 0)
    return total.flatten(0, 1)


def _like(weight: Tensor, of_inputs: Float[Tensor, "groups d"], d: int, step: int) -> Tensor:
    """Values of each group's inputs, in a shape that broadcasts with the weight."""
    groups = len(of_inputs)
    if groups == 1 and not step:
        return of_inputs.reshape(1, *weight.shape[1:])
    n_rows = weight.numel() // d
    return from_rows(of_inputs.repeat_interleave(n_rows // groups, 0), weight.shape, step)


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Every parameter requires gradients inside the block; afterwards as before."""
    frozen = nn.ParameterList(parameter for parameter in model.parameters() if not parameter.requires_grad)
    frozen.requires_grad_()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        frozen.requires_grad_(False)
