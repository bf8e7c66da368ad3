"""The figures by name: the query of each, the options it takes, its title and who draws it.

Gets a warehouse and options; hands on queries to copy and drawn figures. ``warehouse figure`` and the report use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import polars as pl

from warehouse.catalog import text_literal
from warehouse.errors import QueryError
from warehouse.expressions import LAYER_SOURCES, check, check_groups, rows
from warehouse.legible import LONGEST_NAME, shortened_sql
from warehouse.session import Warehouse, did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED = 5
"""Empty groups that a note names."""
EACH_MODEL = "concat_ws(' ', model_id, model)"
"""The axis whose groups are models, by names that no two share."""


@dataclass(frozen=True)
class Plot:
    """A figure that can be asked for by name.

    Attributes
    ----------
    name
        Also the name of the function in ``warehouse.figures``.
    purpose
        What it shows, in a line.
    query
        SQL with places for options: ``{axis}``, ``{x}`` ...; ``{keep}`` and ``{bins}`` are further arguments of a
        macro, or empty.
    title
        With places for the same options as they were given.
    defaults
        The options it takes, each with its default; None stands for left out.
    drawing
        Those of the options that the drawing function takes.
    sources
        Where the columns of ``keep`` come from.
    """

    name: str
    purpose: str
    query: str
    title: str
    defaults: Mapping[str, Any]
    drawing: tuple[str, ...] = ()
    sources: tuple[str, ...] = LAYER_SOURCES


@dataclass(frozen=True)
class Prepared:
    """A figure whose query has run.

    Attributes
    ----------
    plot
        What it is.
    query
        The SQL that gave its rows, to copy.
    rows
        The result.
    title, note
        Texts above and below.
    options
        For the drawing function.
    """

    plot: Plot
    query: str
    rows: pl.DataFrame
    title: str
    note: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, width: float = 7.0) -> Figure:
        """Draw it, ``width`` inches wide.

        Raises
        ------
        WarehouseError
            matplotlib is not installed.
        QueryError
            There is nothing to draw, or too much.
        """
        # matplotlib is an extra: nothing but drawing may need it
        from warehouse import figures

        draw = getattr(figures, self.plot.name)
        figure: Figure = draw(self.rows, title=self.title, note=self.note, width=width, **self.options)
        return figure


_GROUPS = {"axis": "task", "keep": None}

PLOTS = {
    plot.name: plot
    for plot in (
        Plot(
            "explained_variance",
            "variance that the first components of each group explain",
            "from pca({axis}{keep})",
            "Cumulative explained variance by {axis}",
            _GROUPS,
        ),
        Plot(
            "eigenimages",
            "principal components of each group as 3x3 images",
            "from pca({axis}{keep})",
            "Principal components by {axis}",
            _GROUPS,
        ),
        Plot(
            "ridge",
            "distribution of each group's coefficients along each component",
            "from distributions({axis}{keep})",
            "Distributions of coefficients by {axis} (rows) and component (columns)",
            _GROUPS,
        ),
        Plot(
            "drift_heatmap",
            "drift between all groups as a matrix",
            "from drift({axis}{keep})",
            "Drift by {axis}",
            _GROUPS | {"order": "auto", "upper": None},
            drawing=("order", "upper"),
        ),
        Plot(
            "drift_box_plot",
            "box plots of the drift between the groups of one or several axes",
            "select {name} as axis, a::varchar as a, b::varchar as b, drift from drift({axis}{keep}) where a < b",
            "Drift between the groups of {axis}",
            {"axis": ("task", "visual_category", "depth_decile"), "keep": None},
        ),
        Plot(
            "drift_by_depth",
            "drift between groups in each tenth of the depth as bars",
            "from drift_by_depth({axis}{keep})",
            "Drift by depth between the groups of {axis}",
            _GROUPS,
        ),
        Plot(
            "quality_by_depth",
            "box plots of a metric of the layers at each depth, for each group",
            "from quality_by_depth({axis}{keep}{first_apart})",
            "{metric} by depth and {axis}",
            _GROUPS | {"metric": "sparsity", "first_apart": None},
            drawing=("metric",),
        ),
        Plot(
            "accuracy",
            "a metric of each model against its accuracy",
            "from model_quality{where}",
            "{metric} of models against their {against}",
            {"keep": None, "metric": "sparsity", "against": "clean_accuracy", "colour": "robust"},
            drawing=("metric", "against", "colour"),
            sources=("model_quality",),
        ),
        Plot(
            "model_map",
            "groups in the plane, close where the drift between them is small",
            "from drift_map({axis}{keep}{power})",
            "Map of {axis}: distances are like drift^{power:g}",
            {"axis": EACH_MODEL, "keep": None, "power": 0.5},
        ),
        Plot(
            "density",
            "how often each pair of coefficients on two components occurs",
            "from density({x}, {y}{keep}{bins})",
            "Density of coefficients on components {x} and {y}",
            {"keep": None, "x": 0, "y": 1, "bins": None},
            sources=("filter_meta",),
        ),
        Plot(
            "filter_grid",
            "filters of a layer as 3x3 images",
            "from filters natural join layers where layer_id = {layer} order by filter_id limit 400",
            "Filters of layer {layer}",
            {"layer": 0},
        ),
    )
}
"""All figures by name."""


def prepare(
    warehouse: Warehouse, name: str, given: Mapping[str, Any], words: Mapping[str, str] = MappingProxyType({})
) -> Prepared:
    """Check the options of a figure and run its query.

    Parameters
    ----------
    warehouse
        Where to ask.
    name
        One of ``PLOTS``.
    given
        Options by name; an axis is one expression, or several.
    words
        What the texts call an axis, by its expression; by default that itself.

    Raises
    ------
    QueryError
        An unknown figure, an option that it does not take, what is not an expression, an axis without groups or with
        too many, or what DuckDB refuses.
    """
    plot = find(name)
    surplus = next((option for option in given if option not in plot.defaults), None)
    if surplus:
        raise QueryError(f"{name} takes no {surplus}; it takes {', '.join(plot.defaults)}")
    options = {**plot.defaults, **given}
    if options.get("keep") is not None:
        options["keep"] = check(warehouse, options["keep"], "keep", plot.sources)
    axes = [options["axis"]] if isinstance(options.get("axis"), str) else list(options.get("axis", ()))
    if len(axes) > 1 and isinstance(plot.defaults["axis"], str):
        raise QueryError(f"{name} takes one axis, not {len(axes)}: {', '.join(axes)}")
    axes = [check(warehouse, axis, "axis") for axis in axes]
    called = [{EACH_MODEL: "models", **words}.get(axis, axis) for axis in axes]
    arguments = options | _arguments(options)
    short = [with_short_names(warehouse, axis) for axis in axes]
    notes = [_note_of_axis(warehouse, *each, arguments["keep"]) for each in zip(axes, short, called, strict=True)]
    named = [{"axis": axis, "name": text_literal(name)} for name, axis in zip(axes, short, strict=True)]
    query = "\nunion all\n".join(plot.query.format(**arguments | names) for names in named or [{}])
    found = rows(warehouse, query)
    if len(axes) > 1:
        alone = [axis for axis in axes if axis not in found["axis"]]
        notes += [f"No two groups to compare: {', '.join(alone)}."] if alone else []
    return Prepared(
        plot,
        query,
        found,
        _title(plot, options, called),
        " ".join(dict.fromkeys(note for note in notes if note)),
        {option: options[option] for option in plot.drawing},
    )


def with_short_names(warehouse: Warehouse, axis: str) -> str:
    """An axis with the same groups whose names are short enough for people: the axis itself where they are."""
    longest = rows(warehouse, f"from layer_groups({axis}) select max(len(grp::varchar))").item()
    return shortened_sql(axis) if longest is not None and longest > LONGEST_NAME else axis


def find(name: str) -> Plot:
    """The figure of a name.

    Raises
    ------
    QueryError
        There is none, with a suggestion.
    """
    if name not in PLOTS:
        raise QueryError(f"no figure is called {name!r}{did_you_mean(name, set(PLOTS))}")
    return PLOTS[name]


def _arguments(options: Mapping[str, Any]) -> dict[str, str]:
    """What ends an argument list, or a query over a view, as SQL; empty where it is left out."""
    named = ("keep", "bins", "first_apart", "power")
    arguments = {name: "" if options.get(name) is None else f", {name} := {options[name]}" for name in named}
    return arguments | {"where": f" where {options['keep']}" if options.get("keep") else ""}


def _note_of_axis(warehouse: Warehouse, axis: str, short: str, called: str, keep: str) -> str:
    """Which groups are empty and how many layers are in none; an axis without groups or with too many is refused."""
    check_groups(warehouse, axis, axis + keep)
    unknown = "select count(*) filter (grp) as unknown, count(*) as layers"
    (layers,) = rows(warehouse, f"{unknown} from layer_groups(({axis}) is null{keep})").to_dicts()
    note = empty_note(rows(warehouse, f"from empty_groups({short}{keep})"))
    if layers["unknown"]:
        note = (
            f"In no group, as {called} is NULL: {layers['unknown']:,} of {layers['layers']:,} layers. {note}".rstrip()
        )
    return note


def empty_note(frame: pl.DataFrame) -> str:
    """Name the groups that have nothing to show.

    Parameters
    ----------
    frame
        ``from empty_groups(axis)``.
    """
    reasons: dict[str, list[str]] = {}
    for group, reason in frame.select("grp", "reason").rows():
        reasons.setdefault(reason, []).append(str(group))
    return " ".join(f"Not shown ({reason}): {_listed(groups)}." for reason, groups in reasons.items())


def _listed(groups: list[str]) -> str:
    more = f" and {len(groups) - MOST_NAMED:,} more" if len(groups) > MOST_NAMED else ""
    return ", ".join(groups[:MOST_NAMED]) + more


def _title(plot: Plot, options: Mapping[str, Any], axes: list[str]) -> str:
    # names of metrics are columns; the first letter of a title is large
    words = {name: str(options[name]).replace("_", " ") for name in ("metric", "against") if name in options}
    title = plot.title.format(**{**options, **words, "axis": ", ".join(axes)})
    title = title[0].upper() + title[1:]
    return f"{title}, where {options['keep']}" if options.get("keep") else title
