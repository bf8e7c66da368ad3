"""The report: one HTML page about a warehouse that needs no network, with the SQL of everything it shows.

Gets an open warehouse and axes; hands on the text of the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from string import Template
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from warehouse import plots, sqlfiles
from warehouse.errors import QueryError
from warehouse.expressions import check, check_groups, rows
from warehouse.html import Html, element, join, table, text
from warehouse.session import Warehouse
from warehouse.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("task", "visual_category", "depth_decile")
"""What the groups are unless asked otherwise."""
MOST_ROWS = 50
"""Rows of a table; of more groups those with most filters are shown."""
QUALITY = [
    *("grp", "n_models", "n_layers", "n_filters", "sparsity", "variance_entropy", "variance_entropy_norm"),
    *("share_random", "share_degenerate", "orthogonality"),
]
"""Columns of ``quality`` that the report shows."""
LARGE = 250_000
"""Bytes of a drawing from which on pixels may be smaller."""
FIGURES = ("drift_heatmap", "explained_variance", "ridge", "eigenimages")
"""The figures of each axis."""


def page(warehouse: Warehouse, axes: Sequence[str] = AXES) -> str:
    """Write the report.

    Parameters
    ----------
    warehouse
        What it is about.
    axes
        Expressions over the columns of ``layer_meta`` and ``layer_quality``, whose values are the groups.

    Returns
    -------
    A complete HTML page. Where an axis has no groups, or too many for a figure, that part says so.

    Raises
    ------
    QueryError
        An axis that is no expression over known columns.
    WarehouseError
        matplotlib is not installed.
    """
    axes = [check(warehouse, axis, "axis") for axis in dict.fromkeys(axes)]
    name = warehouse.path.absolute().name
    sections = {
        "contents": ("Contents", _contents),
        "degenerate": ("Degenerate models and layers", _degenerate),
        "drift": ("Drift between groups", lambda wh: _drift(wh, axes)),
        **{f"axis-{i}": (f"By {axis}", _of_axis(axis)) for i, axis in enumerate(axes, start=1)},
    }
    return document(name, ((anchor, title, write(warehouse)) for anchor, (title, write) in sections.items()))


def document(name: str, sections: Iterable[tuple[str, str, Iterable[Html]]]) -> str:
    """A complete page.

    Parameters
    ----------
    name
        Its heading.
    sections
        Anchor, heading and content of each.
    """
    written = [
        (anchor, title, element("section", element("h2", title), *content, id=anchor))
        for anchor, title, content in sections
    ]
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in written]
    body = join(
        [
            element("h1", name),
            element("p", f"CNN filter warehouse {__version__}", class_="faint"),
            element("nav", element("ul", *links), aria_label="Contents"),
            element("main", join(section for _, _, section in written)),
        ]
    )
    script = _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_resource("report.html")).substitute(
        title=html.escape(f"{name}: report"),
        body=body,
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _resource(name: str) -> str:
    return (resources.files("warehouse") / name).read_text(encoding="utf-8")


def _contents(warehouse: Warehouse) -> Iterator[Html]:
    (counts,) = _query(warehouse, "contents").to_dicts()
    told = {
        "models": counts["models"],
        "layers": counts["layers"],
        "filters": counts["filters"],
        "filters without layer": counts["unclaimed"],
        "degenerate layers": counts["degenerate_layers"],
        "sparse filters": None if counts["sparsity"] is None else f"{counts['sparsity']:.1%}",
    }
    yield element("dl", *cards(told), class_="counts")
    sources = rows(warehouse, "from sources")
    yield element("h3", "Source")
    for source in sources.to_dicts():
        facts = pl.DataFrame({"property": list(source), "value": [text(value) for value in source.values()]})
        yield table(facts, f"The file {source['name']}")
    yield sql_block("from sources")


def cards(told: Mapping[str, object]) -> Iterator[Html]:
    """Numbers to see first, by what they are."""
    for name, value in told.items():
        yield element("div", element("dt", name), element("dd", text(value)))


def _degenerate(warehouse: Warehouse) -> Iterator[Html]:
    yield element(
        "p",
        "A layer is degenerate if its filters vary like random ones, or hardly at all while many are sparse.",
    )
    for name, caption in {
        "degenerate_models": "Models with the largest share of degenerate layers, at most 20",
        "degenerate_layers": "Degenerate layers with most filters, at most 20",
    }.items():
        found = _query(warehouse, name)
        yield table(found, caption) if not found.is_empty() else element("p", f"{caption}: none.")
        yield sql_block(sqlfiles.load_query("report", name))


def _drift(warehouse: Warehouse, axes: Sequence[str]) -> Iterator[Html]:
    # an axis that cannot be compared must not take the others with it
    usable = [axis for axis in axes if _refusal(warehouse, axis) is None]
    yield element("p", "How differently the filters of each two groups are distributed, for each way to group layers.")
    if usable:
        yield from figure(warehouse, "drift_box_plot", {"axis": usable})
    else:
        yield element("p", "No axis has groups that can be compared.", class_="refusal")


def _of_axis(axis: str) -> Callable[[Warehouse], Iterator[Html]]:
    def write(warehouse: Warehouse) -> Iterator[Html]:
        refusal = _refusal(warehouse, axis)
        if refusal:
            yield element("p", refusal, class_="refusal")
            return
        yield from _quality(warehouse, axis)
        for name in FIGURES:
            yield from figure(warehouse, name, {"axis": axis})
            if name == "drift_heatmap":
                yield from _largest_drifts(warehouse, axis)

    return write


def _quality(warehouse: Warehouse, axis: str) -> Iterator[Html]:
    query = f"from quality({plots.with_short_names(warehouse, axis)})"
    groups = rows(warehouse, query).select(QUALITY)
    groups = groups.drop(column for column in QUALITY[1:] if groups[column].is_null().all())
    caption = f"Quality by {axis}"
    if groups.height > MOST_ROWS:
        caption += f": the {MOST_ROWS} of {groups.height:,} groups with most filters"
        groups = groups.sort("n_filters", descending=True, maintain_order=True).head(MOST_ROWS)
    yield element("h3", "Quality")
    yield table(groups, caption)
    yield sql_block(query)


def _largest_drifts(warehouse: Warehouse, axis: str) -> Iterator[Html]:
    query = f"from drift({plots.with_short_names(warehouse, axis)}) where a < b order by drift desc limit 10"
    pairs = rows(warehouse, query)
    if not pairs.is_empty():
        yield table(pairs, "The largest drifts, in nats")
        yield sql_block(query)


def figure(
    warehouse: Warehouse, name: str, options: Mapping[str, object], words: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Html]:
    """A figure with its caption and its query, or why there is none; ``words`` are those of `plots.prepare`."""
    purpose = plots.find(name).purpose
    yield element("h3", name.replace("_", " ").capitalize())
    try:
        prepared = plots.prepare(warehouse, name, options, words)
        image = _image(prepared)
    except QueryError as error:
        yield element("p", f"Not drawn: {error}.", class_="refusal")
        return
    caption = f"{prepared.title}: {purpose}."
    yield element(
        "figure",
        element(
            "div",
            element("img", src=image, alt=f"{caption} {prepared.note}".strip()),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=prepared.title,
        ),
        element("figcaption", caption),
    )
    yield sql_block(prepared.query)


def _image(prepared: plots.Prepared) -> str:
    """The figure as an address that holds all of it."""
    drawn = prepared.draw()
    drawing = _saved(drawn, "svg")
    if len(drawing) <= LARGE:
        return _address("image/svg+xml", drawing)
    return min(_address("image/svg+xml", drawing), _address("image/png", _saved(drawn, "png")), key=len)


def _saved(drawn: Figure, format_: str) -> bytes:
    # matplotlib is an extra: nothing but drawing may need it
    from warehouse import figures

    stream = io.BytesIO()
    figures.save(drawn, stream, format_)
    return stream.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _refusal(warehouse: Warehouse, axis: str) -> str | None:
    """Why the groups of an axis cannot be compared, if they cannot."""
    try:
        check_groups(warehouse, axis, axis)
    except QueryError as error:
        return str(error)
    return None


def _query(warehouse: Warehouse, name: str) -> pl.DataFrame:
    return rows(warehouse, sqlfiles.load_query("report", name))


def sql_block(query: str) -> Html:
    """A query to copy."""
    return element("div", element("pre", element("code", query), tabindex="0"), class_="sql")
