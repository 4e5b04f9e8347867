"""What a file says of itself."""

from laconic.file import Reader


def plan_of(path):
    """The plan that a file holds, if any."""
    with Reader(path) as reader:
        return reader.plan


def plan_bytes(path):
    """What that plan takes."""
    with Reader(path) as reader:
        return reader.n_plan_bytes
