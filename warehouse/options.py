"""What several commands take: their arguments' types, and options of the form ``name=value``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

WarehousePath = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of the warehouse.")]

MetaOption = Annotated[
    Path | None,
    typer.Option(
        "--meta",
        help="Labels of models: a .csv file with a column `file` and one a label, or a .toml file with a table a file.",
    ),
]
EngineOption = Annotated[
    Literal["local", "spark"], typer.Option("--engine", help="Threads of this process, or workers of Apache Spark.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads that compute, by default one per core.")]
MasterOption = Annotated[
    str | None, typer.Option("--master", metavar="URL", help="With --engine spark: local[2], spark://host:7077, ...")
]
ConfOption = Annotated[
    list[str] | None,
    typer.Option("--conf", metavar="NAME=VALUE", help="With --engine spark: a setting of Spark's; can be repeated."),
]


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
