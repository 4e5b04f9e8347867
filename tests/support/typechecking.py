"""Beartype with Python's own idea of numbers: an int is a float."""

import inspect

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def unchecked(function):
    """The function as users call it, whose arguments nobody checks."""
    return inspect.unwrap(function)
