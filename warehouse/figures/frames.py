"""What figures are drawn from: frames or relations, checked for their columns and the number of their groups."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure
from matplotlib.text import Text

from warehouse.errors import QueryError
from warehouse.figures.style import STYLE
from warehouse.session import did_you_mean


class Relation(Protocol):
    """Anything that gives a polars frame, such as a DuckDB relation."""

    def pl(self) -> pl.DataFrame:
        """All rows as a frame."""


Parameters = ParamSpec("Parameters")
Draw = Callable[Concatenate[pl.DataFrame, Parameters], Figure]


class PublicDraw(Protocol[Parameters]):
    """A drawing function as users call it."""

    def __call__(
        self, frame: pl.DataFrame | Relation, /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Figure:
        """Draw the rows of a frame or relation."""


def draws(*columns: str) -> Callable[[Draw[Parameters]], PublicDraw[Parameters]]:
    """Make a function of a frame one of a frame or relation, checked for these columns and for having rows."""

    def decorate(draw: Draw[Parameters]) -> PublicDraw[Parameters]:
        @functools.wraps(draw)
        def checked(frame: pl.DataFrame | Relation, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
            frame = frame if isinstance(frame, pl.DataFrame) else frame.pl()
            require(frame, columns, draw.__name__)
            if frame.is_empty():
                raise QueryError(f"{draw.__name__} has nothing to draw: the result has no rows")
            with mpl.rc_context(STYLE):
                figure = draw(_comparable(frame), *args, **kwargs)
                # the labels of ticks are made late; a $ in one is no mathematics either
                for text in figure.findobj(Text):
                    text.set_parse_math(False)
                return figure

        return checked

    return decorate


def _comparable(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame, its groups as text where they are lists, structs or NaN: those are no keys."""
    for column in {"grp", "a", "b"} & set(frame.columns):
        groups = frame[column]
        if groups.dtype.is_nested() or (groups.dtype.is_float() and groups.is_nan().any()):
            frame = frame.with_columns(pl.Series(column, [str(group) for group in groups.to_list()]))
    return frame


def require(frame: pl.DataFrame, columns: Iterable[str], name: str) -> None:
    """Refuse a frame without these columns."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise QueryError(f"{name} needs a column {missing[0]!r}{did_you_mean(missing[0], set(frame.columns))}")


def at_most(most: int, groups: Sequence[object], name: str) -> None:
    """Refuse more groups than a reader could tell apart."""
    if len(groups) > most:
        raise QueryError(
            f"{name} shows at most {most:,} groups, not {len(groups):,}; keep fewer or choose a coarser axis"
        )


def in_order(frame: pl.DataFrame, column: str = "grp") -> list[Any]:
    """The values of a column, each once, in the order of their first rows."""
    return frame[column].unique(maintain_order=True).to_list()
