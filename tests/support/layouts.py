"""Layouts of integers in so many rows."""

from laconic.coding.layout import Layout


def in_rows(n, n_rows=1, kernel=()):
    """The layout of `n` integers in rows of equal length."""
    return Layout(n_rows, n // n_rows, kernel)
