"""Which tensors of what a training script saved are the network's, under which names, and what is left out.

A part is a mapping with named tensors of floats, at the top or under keys such as ``state_dict`` or ``checkpoint.ema``.
States of optimizers are none. One part is found by itself; among several a key chooses. Names that wrappers of modules
put before the module's own are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from laconic.core.text import did_you_mean, listed
from laconic.errors import CheckpointError

TOP = "."  # the key of what is under no key
MAX_DEPTH = 8
Keys = tuple[Any, ...]
# What (distributed) data parallelism and moving averages, torch.compile, FSDP and checkpointed activations put before
# names; a module of its own may be called `module`, so that this one is dropped only where it begins every name.
_COMMON, _PRIVATE = "module", ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel's, beside what begins with `module.`


def choose(found: Any, key: str | None = None) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The named tensors in `found`, of the part `key` if it is given; the keys that are left out, with their tensors.

    Under a key without named tensors of its own, those at any depth count, named by their keys.

    Raises:
        CheckpointError: there are no named tensors or several parts, or nothing has this key.
    """
    keys = _only_part(found) if key is None else _keys_of(found, key)
    others: list[tuple[Keys, Any]] = []
    for depth, inner in enumerate(keys):
        others += [((*keys[:depth], other), value) for other, value in found.items() if other != inner]
        found = found[inner]
    entries: list[tuple[Keys, Any]] = [((name,), value) for name, value in _items(found)]
    if key is not None and not _tensors(found):
        entries = list(_leaves(found))
    named = [(".".join(map(str, at)), v) for at, v in entries if isinstance(v, Tensor) and _is_named(at)]
    tensors = {name: tensor.detach() for name, tensor in named}
    if len(tensors) < len(named):
        twice = next(name for i, (name, _) in enumerate(named) if name in dict(named[:i]))
        raise CheckpointError(f"expected names that differ, found {twice!r} twice")
    if not tensors:
        raise CheckpointError(f"expected named tensors{f' under {key!r}' if key else ''}, found {_contents(found)}")
    others += [((*keys, *at), v) for at, v in entries if not (isinstance(v, Tensor) and _is_named(at))]
    n_tensors = {at: sum(isinstance(leaf, Tensor) for _, leaf in _leaves(value)) for at, value in others}
    return tensors, {".".join(map(str, at)): n for at, n in n_tensors.items()}


def told(left_out: Mapping[str, int]) -> str:
    """What is left out, in a line."""
    return listed(f"{name} ({_count(n)})" if n else name for name, n in left_out.items())


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names without those of wrappers, to the names as they are; without the counter of an averaged model."""
    names = list(names)
    inner = [name for name in names if name != _COUNTER]
    counted = len(inner) < len(names) and inner and all(name.startswith(f"{_COMMON}.") for name in inner)
    plain = {name: name.split(".") for name in (inner if counted else names)}
    while True:
        if plain and all(len(parts) > 1 and parts[0] == _COMMON for parts in plain.values()):
            plain = {name: parts[1:] for name, parts in plain.items()}
            continue
        fewer = {name: [*(p for p in parts[:-1] if p not in _PRIVATE), parts[-1]] for name, parts in plain.items()}
        if fewer == plain:
            break
        plain = fewer
    dropped = {".".join(parts): name for name, parts in plain.items()}
    return dropped if len(dropped) == len(plain) else {name: name for name in names}


def _parts(found: Any, at: Keys, floats: bool, seen: set[int]) -> Iterator[tuple[Keys, int]]:
    """Keys of parts and how many tensors they have; beside other parts, a few tensors make none."""
    if not isinstance(found, Mapping) or "param_groups" in found or id(found) in seen or len(at) > MAX_DEPTH:
        return
    seen.add(id(found))
    named = [(name, value) for name, value in found.items() if isinstance(name, str)]
    inner = [part for name, value in named for part in _parts(value, (*at, name), floats, seen)]
    tensors = _tensors(found)
    fits = any(t.ndim and (t.is_floating_point() or t.is_complex()) for t in tensors) if floats else tensors
    if fits and (not inner or 2 * len(tensors) > len(found)):
        yield at, len(tensors)
    yield from inner


def _only_part(found: Any) -> Keys:
    # Integers alone may be a generator's state, and are a network only if there is nothing else.
    parts = list(_parts(found, (), True, set())) or list(_parts(found, (), False, set()))
    if len(parts) == 1:
        return parts[0][0]
    if not parts:
        raise CheckpointError(f"expected named tensors, found {_contents(found)}")
    several = listed(f"{'.'.join(at) or TOP} ({_count(n)})" for at, n in parts)
    raise CheckpointError(
        f"expected one part with named tensors, found several: {several}; choose one by its key (--key)"
    )


def _keys_of(found: Any, key: str) -> Keys:
    if key in ("", TOP):
        return ()
    if keys := next(_under(found, key), None):
        return keys
    parts = [".".join(at) or TOP for at, _ in _parts(found, (), True, set())]
    known = parts or [str(name) for name, _ in _items(found)]
    raise CheckpointError(f"expected a part {key!r}, found {listed(known) or 'nothing'}{did_you_mean(key, known)}")


def _under(found: Any, key: str) -> Iterator[Keys]:
    """Paths of keys that spell `key` with dots; keys may have dots themselves."""
    for name, value in _items(found):
        if str(name) == key:
            yield (name,)
        elif key.startswith(f"{name}."):
            yield from ((name, *rest) for rest in _under(value, key[len(str(name)) + 1 :]))


def _items(found: Any) -> list[tuple[Any, Any]]:
    return list(found.items()) if isinstance(found, Mapping) else []


def _tensors(found: Any) -> list[Tensor]:
    return [value for name, value in _items(found) if isinstance(name, str) and isinstance(value, Tensor)]


def _leaves(found: Any, at: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, Any]]:
    """What is no container, with its keys; a container within itself, or met again, counts as a leaf."""
    seen = set() if seen is None else seen
    inner = _items(found) or (list(enumerate(found)) if isinstance(found, (list, tuple)) else [])
    if not inner or len(at) > MAX_DEPTH or id(found) in seen:
        yield at, found
        return
    seen.add(id(found))
    for name, value in inner:
        yield from _leaves(value, (*at, name), seen)


def _is_named(at: Keys) -> bool:
    return len(at) > 1 or (len(at) == 1 and isinstance(at[0], str))


def _count(n: int) -> str:
    return f"{n} tensor" + "s" * (n != 1)


def _contents(found: Any) -> str:
    names = f" of {listed(repr(name) for name, _ in _items(found)) or 'nothing'}" if isinstance(found, Mapping) else ""
    return f"a {type(found).__name__}{names}"
