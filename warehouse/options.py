"""What several commands take: their arguments' types, and options of the form ``name=value``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

WarehousePath = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of the warehouse.")]


def assignments(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """``name=value`` texts of an option as a mapping.

    Raises
    ------
    typer.BadParameter
        A text of another form.
    """
    pairs = [text.partition("=") for text in texts or ()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise typer.BadParameter(f"{name!r} is not name=value", param_hint=option)
    return {name: value for name, _, value in pairs}
