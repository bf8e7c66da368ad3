"""The ready queries of ``sql/analyses``: their headers, and the settings of their parameters.

An analysis asks for a parameter by ``getvariable('name')``, so that it runs as it stands in the plain shell, where
``set variable name = value`` sets one. Here values are bound to such variables, never pasted into the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from warehouse import sqlfiles
from warehouse.errors import CatalogError

KEYS = ("purpose", "source", "parameters", "grain", "columns", "reading", "example", "portable")
"""What the header of every analysis tells."""

_PARAMETER = re.compile(r"(?P<name>\w+) \((?P<type>\w+), (?P<default>[^)]*)\): (?P<meaning>[^;]+)(?:; |$)")


@dataclass(frozen=True)
class Parameter:
    """What can be set of an analysis.

    Attributes
    ----------
    name
        Of the variable.
    type
        A DuckDB type, or ``column``: the name of a column of ``layer_meta``.
    default, meaning
        In words.
    """

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Analysis:
    """One file of ``sql/analyses``.

    Attributes
    ----------
    name
        The file's.
    header
        Its entries, all of ``KEYS`` among them.
    parameters
        Those that the header declares.
    text
        The whole file: header and query.
    """

    name: str
    header: Mapping[str, str]
    parameters: tuple[Parameter, ...]
    text: str

    @property
    def row(self) -> dict[str, Any]:
        """A row of the table ``analyses``."""
        return {"name": self.name, **{key: self.header[key] for key in KEYS}, "query": self.text}

    @property
    def help_row(self) -> dict[str, Any]:
        """A row of ``help``; its example shows the query."""
        told = {key: self.header[key] for key in ("purpose", "parameters", "columns")}
        return {
            "name": self.name,
            "kind": "analysis",
            **told,
            "example": f"select query from analyses where name = '{self.name}'",  # noqa: S608 - a name of ours
        }


@functools.cache
def load() -> tuple[Analysis, ...]:
    """All analyses, by name."""
    paths = sorted((sqlfiles.sql_folder() / "analyses").glob("*.sql"))
    return tuple(parse(path.stem, path.read_text(encoding="utf-8")) for path in paths)


def parse(name: str, text: str, defaults: Mapping[str, str] = MappingProxyType({})) -> Analysis:
    """Read the text of ``sql/analyses/<name>.sql``, whose header may do without the entries that have a default.

    Raises
    ------
    CatalogError
        An entry of the header is missing, or a parameter is not declared as ``name (type, default): meaning``.
    """
    told, _ = sqlfiles.read_header(text)
    header = {**defaults, **told}
    where = f"sql/analyses/{name}.sql"
    missing = [key for key in KEYS if not header.get(key)]
    if missing:
        raise CatalogError(f"{where}: the header has no line `-- {missing[0]}: ...`")
    declared = header["parameters"]
    found = [] if declared == "none" else list(_PARAMETER.finditer(declared))
    if declared != "none" and "".join(match[0] for match in found) != declared:
        raise CatalogError(f"{where}: expected parameters as `name (type, default): meaning; ...`, or `none`")
    return Analysis(name, header, tuple(Parameter(**match.groupdict()) for match in found), text)
