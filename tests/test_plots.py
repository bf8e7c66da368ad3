"""Figures by name, from a warehouse: their options, titles and notes, and the command that writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import warehouse
from tests.figure_frames import HOSTILE, assert_readable, texts_of
from tests.reference import write_dataset
from tests.test_cli import call_main
from warehouse import figures, plots
from warehouse.errors import QueryError


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """A warehouse whose tasks have hostile names."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("hostile") / "dataset.h5"
    layers = [(label, rng.normal(size=(60, 9)) * rng.random(9)) for label in HOSTILE if label]
    write_dataset(path, layers, unclaimed=rng.normal(size=(1, 9)))
    warehouse.ingest(path, path.with_name("hostile.warehouse"))
    with warehouse.open(path.with_name("hostile.warehouse")) as opened:
        yield opened


@pytest.mark.parametrize(
    "name", ["drift_box_plot", "drift_heatmap", "eigenimages", "explained_variance", "model_map", "ridge"]
)
def test_figures_of_a_warehouse_with_hostile_labels_are_readable(hostile: warehouse.Warehouse, name: str) -> None:
    assert_readable(plots.prepare(hostile, name, {"axis": "task"}).draw(3.5))


@pytest.mark.parametrize("name", plots.PLOTS)
def test_every_figure_can_be_drawn_from_a_warehouse_by_its_defaults(
    wh: warehouse.Warehouse, lens_wh: warehouse.Warehouse, name: str
) -> None:
    shown = lens_wh if name == "accuracy" else wh
    prepared = plots.prepare(shown, name, {})
    assert_readable(prepared.draw(3.5))
    # the query is all it takes
    assert shown.sql(prepared.query).pl().height == prepared.rows.height


def test_titles_say_axis_and_filter_and_notes_name_empty_groups(wh: warehouse.Warehouse) -> None:
    tasks = wh.sql("select distinct task from models order by 1").pl()["task"].to_list()
    prepared = plots.prepare(wh, "drift_heatmap", {"axis": "task", "keep": f"task <> '{tasks[0]}'"})
    said = texts_of(prepared.draw())
    assert f"Drift by task, where task <> '{tasks[0]}'" in said
    assert tasks[0] in said.split("Not shown (keep leaves none of its layers): ")[1]
    assert prepared.query == f"from drift(task, keep := task <> '{tasks[0]}')"


def test_titles_say_words_where_an_axis_has_them(wh: warehouse.Warehouse) -> None:
    assert plots.prepare(wh, "model_map", {}).title == "Map of models: distances are like drift^0.5"
    axis = "nullif(model_id, 3)"
    prepared = plots.prepare(wh, "ridge", {"axis": axis}, {axis: "one model or another"})
    assert prepared.title.startswith("Distributions of coefficients by one model or another ")
    assert prepared.note.startswith("In no group, as one model or another is NULL: ")


@pytest.mark.parametrize(
    ("name", "options", "query"),
    [
        ("ridge", {}, "from distributions(task)"),
        ("ridge", {"axis": " {'t': task}\n"}, "from distributions({'t': task})"),
        ("density", {"x": 3, "bins": 16, "keep": "w0 > 0"}, "from density(3, 1, keep := w0 > 0, bins := 16)"),
        ("model_map", {"axis": "task", "power": 1.0}, "from drift_map(task, power := 1.0)"),
        ("quality_by_depth", {"first_apart": True}, "from quality_by_depth(task, first_apart := True)"),
        ("accuracy", {"keep": "depth > 1"}, "from model_quality where depth > 1"),
        (
            "filter_grid",
            {"layer": 7},
            "from filters natural join layers where layer_id = 7 order by filter_id limit 400",
        ),
    ],
)
def test_queries_are_one_line_to_copy(
    wh: warehouse.Warehouse, name: str, options: dict[str, object], query: str
) -> None:
    prepared = plots.prepare(wh, name, options)
    assert prepared.query == query
    assert wh.sql(query).pl().equals(prepared.rows)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drift_heatmp", {}, "no figure is called 'drift_heatmp'; did you mean 'drift_heatmap'"),
        ("ridge", {"order": "mean"}, "ridge takes no order; it takes axis, keep"),
        ("ridge", {"axis": ("task", "model")}, "ridge takes one axis, not 2: task, model"),
        ("ridge", {"axis": "tsak"}, "no column 'tsak'; did you mean 'task'"),
        ("ridge", {"axis": "task", "keep": "false"}, "no layer has a group"),
        ("ridge", {"axis": "null"}, "no layer has a group: 'null' is NULL everywhere"),
        ("drift_heatmap", {"axis": "unnest(range(3000))"}, "has 3,000 groups, more than 2,000"),
        ("density", {"keep": "w12 > 0"}, "no column 'w12'"),
        ("ridge", {"keep": " "}, "keep is empty"),
        ("filter_grid", {"layer": 10**6}, "nothing to draw"),
        ("quality_by_depth", {"metric": "x"}, "no metric is called 'x'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    wh: warehouse.Warehouse, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(QueryError, match=message) as refusal:
        plots.prepare(wh, name, options).draw()
    assert "\n" not in str(refusal.value)


def test_the_command_lists_the_figures_with_a_line_each(sample_warehouse: Path) -> None:
    status, out, err = call_main("figure", str(sample_warehouse))
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(plots.PLOTS)


@pytest.mark.parametrize("ending", figures.FORMATS)
def test_the_command_writes_the_figure_to_the_file(sample_warehouse: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"drift.{ending}"
    file.write_text("old")
    arguments = ("drift_box_plot", "--axis", "task", "--axis", "visual_category", "--keep", "conv_depth > 0")
    result = call_main("figure", str(sample_warehouse), *arguments, "--width", "3.5", "-o", str(file))
    assert result == (0, "", "")
    assert file.stat().st_size > 2000
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ridge",), "name a file that ends in .png, .pdf or .svg with -o FILE"),
        (("ridge", "-o", "x.jpg"), "x.jpg: name a file that ends in .png, .pdf or .svg with -o FILE"),
        (("rigde", "-o", "x.png"), "no figure is called 'rigde'; did you mean 'ridge'?"),
        (("ridge", "--layer", "3", "-o", "x.png"), "ridge takes no layer; it takes axis, keep"),
        (("ridge", "--axis", "task, model", "-o", "x.png"), "axis 'task, model' is 2 expressions; give one"),
        (("ridge", "-o", "none/x.png"), "cannot write none/x.png: there is no folder none"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(
    sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_main("figure", str(sample_warehouse), *arguments) == (1, "", f"error: {message}\n")
    assert not list(tmp_path.iterdir())


def test_an_axis_without_two_groups_is_named_among_several(wh: warehouse.Warehouse) -> None:
    prepared = plots.prepare(wh, "drift_box_plot", {"axis": ("task", "1", "'a, b'")})
    assert prepared.note == "No two groups to compare: 1, 'a, b'."
    assert "No two groups to compare" in texts_of(prepared.draw())
