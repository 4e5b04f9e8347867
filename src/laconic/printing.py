"""What the terminal shows, as text."""

from __future__ import annotations

import io
from typing import Any


def as_text(renderable: Any) -> str:
    """What rich prints of `renderable` in 80 columns, without colours."""
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
