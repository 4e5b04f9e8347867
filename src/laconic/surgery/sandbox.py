"""Tracing under a time limit; the random state is restored, and any failure becomes an UnsupportedError.

A model's forward is anybody's code, and tracing it may never end.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from laconic.errors import LaconicError, UnsupportedError
from laconic.model.modules import unwrap
from laconic.surgery.coupling import check_cuttable
from laconic.surgery.verify import devices, outputs, renew_, scratch


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
            check_cuttable(inner)
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
