"""Builds HTML of which every text is escaped, whoever wrote it: nothing but ``Html`` is taken for markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from warehouse.legible import printable, shortened

VOID = ("img", "wbr")
NO_VALUE = "–"  # noqa: RUF001 - a dash, as in printed tables


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Html:
    """An element with its content.

    Parameters
    ----------
    tag
        Its name.
    children
        Markup as ``Html``; any other text is escaped.
    attributes
        By name; an underscore stands for a hyphen, and one at the end for nothing (``class_``).
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    content = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{tag}{written}>{content}</{tag}>")


def join(parts: Iterable[Html]) -> Html:
    """Markup, one after the other."""
    return Html("\n".join(parts))


def table(frame: pl.DataFrame, caption: str) -> Html:
    """A table that the page's script makes sortable; each number keeps its unrounded value for that.

    Parameters
    ----------
    frame
        The rows. Numbers stand flush right.
    caption
        What they are.
    """
    numeric = [dtype.is_numeric() for dtype in frame.dtypes]
    heads = (
        element("th", *_breakable(name), scope="col", class_="number" if right else "text")
        for name, right in zip(frame.columns, numeric, strict=True)
    )
    body = (element("tr", *_cells(row, numeric)) for row in frame.rows())
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *heads)),
            element("tbody", *body),
            class_="sortable",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _breakable(name: str) -> list[str]:
    """A name of which lines may end at each underscore."""
    first, *others = re.split("(?<=_)", name)
    return [first, *(piece for other in others for piece in (element("wbr"), other))]


def _cells(row: Sequence[Any], numeric: Sequence[bool]) -> Iterable[Html]:
    for position, (value, right) in enumerate(zip(row, numeric, strict=True)):
        shown = text(value)
        number = {"class_": "number", "data_value": "" if value is None else str(value)}
        if position == 0:
            yield element("th", shown, scope="row", **(number if right else {"class_": "text"}))
        else:
            yield element("td", shown, **(number if right else {}))


def text(value: Any) -> str:
    """A value for people: thousands apart, four digits of a fraction, a dash for NULL, a line for any text."""
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(shortened(str(value)))
