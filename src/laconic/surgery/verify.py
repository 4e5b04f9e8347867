"""Trying a cut before it is believed: the smaller model must compute what the masked one does.

On scratch copies, some members of a group are set to zero in one copy and cut in the other; the outputs must agree.
Only this decides, so a wrong trace costs a refusal, never a wrong model.

A model's forward is anybody's code, and tracing it may never end. So traces run in a sandbox: under a time limit, with
the random state restored, and any failure becomes an UnsupportedError.
"""

from __future__ import annotations

import copy
import ctypes
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.errors import LaconicError, UnsupportedError
from laconic.model.modules import call, copied, map_tensors, unwrap
from laconic.surgery.cut import cut_
from laconic.surgery.plan import Group, Plan

TOLERANCE = 1e-5  # of the largest output
JITTER = 0.1  # standard deviation of what is added to vectors, around 0 or 1 as a rule


def floats(found: Any) -> Iterator[Tensor]:
    """The floating tensors in tuples, lists, mappings and dataclasses."""
    if isinstance(found, Tensor):
        if found.is_floating_point():
            yield found
        return
    if is_dataclass(found) and not isinstance(found, Mapping):
        found = [getattr(found, field.name) for field in fields(found)]
    inner = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else ()
    for part in list(inner):
        yield from floats(part)


def scratch(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a model to modify, in evaluation mode, in float64 if its forward supports that, and inputs to match."""

    def double(tensor: Tensor) -> Tensor:
        return tensor.detach().double() if tensor.is_floating_point() else tensor

    wide = copied(model).eval().double(), map_tensors(double, inputs)
    try:
        outputs(*wide)
    except Exception:  # float32 somewhere in the forward; or the model fails, which its caller will see
        return copied(model).eval(), inputs
    return wide


def variant(model: nn.Module, new: Mapping[int, Tensor]) -> nn.Module:
    """A copy of `model` that shares its tensors, except those whose identity is in `new`."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): new.get(id(tensor), tensor) for tensor in tensors})


@torch.no_grad()
def renew_(model: nn.Module) -> None:
    """Randomise weights, biases and statistics, so that each matters and differs from its neighbours.

    Coupling does not depend on values. But among the ones and zeros of fresh networks, or behind weights that hardly
    act, a cut at the wrong place would go unnoticed.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.ndim > 1 and parameter.numel():
            parameter.normal_(std=(parameter[0].numel()) ** -0.5)
        elif parameter.is_floating_point():
            parameter.add_(torch.randn_like(parameter), alpha=JITTER)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
            assert module.running_mean is not None
            module.running_mean.normal_(std=JITTER)
            module.running_var.uniform_(0.5, 2)


@torch.no_grad()
def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The floating outputs of one forward; UnsupportedError if there are none."""
    with torch.random.fork_rng(devices=devices(model)):  # so each forward draws the same
        found = list(floats(call(model, inputs)))
    if not found:
        raise UnsupportedError(f"{type(model).__name__}: expected outputs with floating tensors, found none")
    return found


@torch.no_grad()
def disagreement(model: nn.Module, inputs: Any, plan: Plan) -> str:
    """Why the model cut by `plan` differs from the masked one on `inputs`; empty if it does not. `model` stays."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    new: dict[int, Tensor] = {}
    for name in plan.kept.keys() & parameters.keys():
        zeroed = parameters[name].detach().clone()
        for axis, kept in plan.kept[name].items():
            gone = torch.ones(zeroed.shape[axis], dtype=torch.bool).index_fill_(0, kept, False)
            zeroed.index_fill_(axis, gone.nonzero().squeeze(1).to(zeroed.device), 0)
        new[id(parameters[name])] = nn.Parameter(zeroed, requires_grad=False)
    for block in plan.bypassed:
        new |= zeros(model.get_submodule(block))
    expected, smaller = outputs(variant(model, new), inputs), variant(model, {})
    try:
        cut_(smaller, plan).pop_all()
        found = outputs(smaller, inputs)
    except Exception as error:  # a forward can fail in any way on another shape
        return f"cut, it does not run: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if [t.shape for t in found] != [t.shape for t in expected]:
        return "the cut changes the shape of the model's outputs"
    reason = difference(expected, found, "the masked model's")
    return f"cut, {reason}" if reason else ""


def difference(expected: Sequence[Tensor], found: Sequence[Tensor], whose: str) -> str:
    """By how much outputs differ from those that are `expected`, if by more than rounding; else empty."""
    for a, b in zip(expected, found, strict=True):
        scale, error = (float(t.abs().max()) if t.numel() else 0.0 for t in (a, a - b))
        if not error <= TOLERANCE * scale:
            return f"its outputs differ by {error:.1e} from {whose}, of at most {scale:.1e}"
    return ""


def sift(
    model: nn.Module, inputs: Any, groups: Sequence[Group], accepted: Sequence[Group] = ()
) -> tuple[list[Group], dict[str, str]]:
    """Which of `groups` can be cut together with those `accepted` before, and why each of the others cannot.

    All are tried together, with half the members of each cut, chosen at random; where that fails, each half alone.
    """
    reason = ""
    if groups:
        chance = torch.Generator().manual_seed(0)
        members: list[tuple[Group, Tensor]] = []
        for group in (*accepted, *groups):
            stay = torch.ones(group.n, dtype=torch.bool)
            stay[torch.randperm(group.n, generator=chance)[: max(1, group.n // 2)]] = False
            members.append((group, stay))
        reason = disagreement(model, inputs, Plan.keeping(members, model))
    if not reason:
        return [*accepted, *groups], {}
    if len(groups) == 1:
        return list(accepted), {groups[0].name: reason}
    half = len(groups) // 2
    first, refused = sift(model, inputs, groups[:half], accepted)
    both, also = sift(model, inputs, groups[half:], first)
    return both, refused | also


def zeros(block: nn.Module) -> dict[int, Tensor]:
    """Identity of each parameter of `block` → zeros in its place."""
    return {id(p): nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in block.parameters()}


def devices(model: nn.Module) -> list[torch.device]:
    """The model's devices that have their own random states."""
    return list({t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})


class _TimeUp(BaseException):
    """Raised inside a trace; not an Exception, so that no forward catches it."""


@contextmanager
def sandboxed(model: nn.Module, inputs: Any, seconds: float) -> Iterator[tuple[nn.Module, Any]]:
    """A copy of `model` to trace and try, with random trainable weights, and inputs of its type; `model` is not run.

    On the main thread the limit interrupts anything; on another, or where the system has no timer signals, it takes
    effect at the next step of Python code.

    Raises:
        UnsupportedError: the time is up, or anything inside fails.
    """
    inner = unwrap(model)
    kind = type(inner).__name__
    try:
        on_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
        limit = _signalled(seconds) if on_main else _watched(seconds)
        with limit, torch.random.fork_rng(devices=devices(inner)), torch.enable_grad():
            _check_cuttable(inner)
            torch.default_generator.manual_seed(0)  # of the CPU alone: other devices are not forked
            copied, matching = scratch(inner, inputs)
            for parameter in copied.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            renew_(copied)
            if not all(bool(t.isfinite().all()) for t in outputs(copied, matching)):
                raise UnsupportedError(f"{kind}: expected finite outputs on the example, found NaN or infinity")
            yield copied, matching
    except _TimeUp:
        raise UnsupportedError(f"{kind}: tracing did not end within {seconds:g} seconds") from None
    except (LaconicError, ImportError):
        raise
    except Exception as error:
        raise UnsupportedError(f"{kind}: tracing failed: {type(error).__name__}: {error}") from error


@contextmanager
def _signalled(seconds: float) -> Iterator[None]:
    """Raise `_TimeUp` by a timer's signal; a timer that ran before runs on afterwards."""

    def ring(*_: object) -> None:
        raise _TimeUp

    begin = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - begin)), interval)


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """Raise `_TimeUp` in this thread from another."""
    thread, over, lock = threading.get_ident(), False, threading.Lock()

    def ring() -> None:
        with lock:  # never after the block's end
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TimeUp))

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)  # one that is on its way


def _check_cuttable(model: nn.Module) -> None:
    """UnsupportedError where a model has lazy or parametrised tensors."""
    for name, module in model.named_modules():
        if hasattr(module, "parametrizations"):
            raise UnsupportedError(f"{name}: expected plain parameters, found parametrisations; remove them first")
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise UnsupportedError(f"{name}: not initialised yet; run the model once first")
