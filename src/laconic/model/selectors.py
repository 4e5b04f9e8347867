"""Which tensors compress: by default all floating-point parameters of two or more dimensions.

It does not matter which module holds them: recurrent and attention layers, experts and bare parameters count too. Left
out are the scales of norms, and those of `weight_norm`. Buffers never compress by default; a checkpoint does not say
which tensors are buffers, so names tell.

A *selector* widens or narrows that: the name of a parameter or of a module, a pattern ``re:…``, or a type of module. A
pattern matches from the start of a parameter's name, as `re.match` does; end it in ``$`` to match whole names. A
selector that matches nothing is an error, because a misspelt one would silently prune what should be kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

from torch import Tensor, nn

from laconic.core.text import did_you_mean
from laconic.errors import MismatchError
from laconic.model.modules import n_nonzero, refuse_uninitialized, unwrap

Selector: TypeAlias = str | type[nn.Module]

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_OTHERS = (
    r"(bias|mask|tril|triu|anchors?|anchor_grid|index|ids|scales?|scale_inv|zeros|absmax|mean|std|sin|cos|pe|freqs?)"
)
BUFFER = re.compile(rf"(.*[._])?{_OTHERS}(_cached|_cache)?")


def compressible(
    model: nn.Module, include: Iterable[Selector] | None = None, exclude: Iterable[Selector] = ()
) -> dict[str, nn.Parameter]:
    """The parameters of `model` that compress, by name, in its order; a tied one once, by its first name.

    Args:
        model: any module, also one wrapped by `torch.compile` or data parallelism: names are the inner ones.
        include: selectors of what compresses, instead of the default. A module's name or type selects its parameters
            of two or more dimensions; others are selected by their own names.
        exclude: selectors of what does not compress after all, under any of its names.

    Raises:
        MismatchError: a selector matches nothing, nothing is left, or a lazy layer was never run.
    """
    owners = _owners(unwrap(model))
    chosen = _chosen(owners, include, exclude)
    named = {name: parameter for name, (_, parameter) in owners.items() if id(parameter) in chosen}
    first_names = {id(parameter): name for name, parameter in reversed(named.items())}
    selected = {name: parameter for name, parameter in named.items() if name == first_names[id(parameter)]}
    if not selected:
        raise MismatchError("no tensor of this model compresses; name some with include=")
    return selected


def sparsity(model: nn.Module) -> float:
    """The fraction of the compressible weights of `model` that are zero."""
    weights = compressible(model).values()
    return 1 - sum(n_nonzero(w) for w in weights) / sum(w.numel() for w in weights)


def matches(selector: str, name: str) -> bool:
    """Whether a selector selects the parameter `name`: by its name, its module's, or a pattern ``re:…``."""
    return names(selector, name) or name.startswith(f"{selector}.")


def names(selector: str, name: str) -> bool:
    """Whether a selector is just that name, or a pattern ``re:…`` that matches it."""
    if not selector.startswith("re:"):
        return name == selector
    try:
        return re.match(selector[3:], name) is not None
    except re.error as error:
        raise MismatchError(f"expected a pattern, found {selector!r}: {error}") from error


def names_to_quantize(
    source: nn.Module | Mapping[str, Tensor], include: Iterable[Selector] | None, exclude: Iterable[Selector]
) -> set[str]:
    """Names of the tensors that a file may round: what compresses, and the biases beside those weights.

    Tied tensors count under all their names. Bare tensors compress if they are of floats with two or more dimensions
    and `may_be_a_weight`.
    """
    exclude = list(exclude)
    if isinstance(source, nn.Module):
        owners = _owners(unwrap(source))
        chosen_ids = _chosen(owners, include, exclude)
        chosen = {name for name, (_, parameter) in owners.items() if id(parameter) in chosen_ids}
    else:
        owners = {name: (None, tensor) for name, tensor in source.items()}
        weights = {name for name, tensor in source.items() if may_be_a_weight(name, tensor)}
        chosen = weights if include is None else _matching(owners, include, must=True)
    beside = {f"{name.removesuffix('weight')}bias" for name in chosen if name.endswith("weight")}
    return (chosen | (beside & owners.keys())) - _matching(owners, exclude, must=True)


def may_be_a_weight(name: str, tensor: Tensor) -> bool:
    """Whether a checkpoint's tensor is taken for a weight: of floats, two or more dimensions, and no buffer's name."""
    return tensor.ndim > 1 and tensor.is_floating_point() and not BUFFER.fullmatch(name)


def quantized(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that `save` quantises by default: what compresses, and the biases beside it."""
    names = names_to_quantize(model, None, ())
    return {name: p for name, p in unwrap(model).named_parameters() if name in names}


T = TypeVar("T", bound=Tensor)
_Owners: TypeAlias = Mapping[str, tuple[nn.Module | None, T]]


def _owners(model: nn.Module) -> _Owners[nn.Parameter]:
    """Parameter name → the module that holds it, and the parameter; a tied one under all its names."""
    owners: dict[str, tuple[nn.Module | None, nn.Parameter]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full = f"{prefix}.{name}" if prefix else name
            refuse_uninitialized(full, parameter)
            owners[full] = (module, parameter)
    return owners


def _chosen(owners: _Owners[nn.Parameter], include: Iterable[Selector] | None, exclude: Iterable[Selector]) -> set[int]:
    """The identities of the parameters that compress."""
    wanted = _default(owners) if include is None else _matching(owners, include, must=True)
    spared = _matching(owners, exclude, must=True)
    return {id(owners[name][1]) for name in wanted} - {id(owners[name][1]) for name in spared}


def _default(owners: _Owners[nn.Parameter]) -> set[str]:
    return {
        name
        for name, (module, parameter) in owners.items()
        if parameter.ndim > 1 and parameter.is_floating_point() and not _is_scale(module, name)
    }


def _is_scale(module: nn.Module | None, name: str) -> bool:
    """Whether a parameter scales what other parameters give: a norm's, or the length in `weight_norm`."""
    if isinstance(module, NORMS):
        return True
    if name.endswith(".original0"):
        return type(getattr(module, "0", None)).__name__ == "_WeightNorm"
    return name.endswith("_g") and hasattr(module, f"{name.rsplit('.', 1)[-1][:-2]}_v")


def _matching(owners: _Owners[T], selectors: Iterable[Selector], must: bool) -> set[str]:
    names: set[str] = set()
    for selector in [selectors] if isinstance(selectors, str) else selectors:
        matched = set(_matches(owners, selector))
        if must and not matched:
            raise MismatchError(_no_match(owners, selector))
        names |= matched
    return names


def _matches(owners: _Owners[T], selector: Selector) -> Iterator[str]:
    for name, (module, parameter) in owners.items():
        if isinstance(selector, type):
            if isinstance(module, selector) and parameter.ndim > 1:
                yield name
        elif names(selector, name) or (parameter.ndim > 1 and matches(selector, name)):
            yield name


def _no_match(owners: _Owners[T], selector: Selector) -> str:
    if isinstance(selector, type):
        return f"expected a layer of type {selector.__name__} with weights, found none"
    known = {".".join(name.split(".")[:i]) for name in owners for i in range(1, name.count(".") + 2)}
    hint = did_you_mean(selector, sorted(known), n=3)
    return f"expected a parameter or module that matches {selector!r}, found none{hint}"
