"""Figures: what stands on the axes against the frame, texts that never overlap, and clear refusals."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

import warehouse
from tests.figure_frames import (
    FRAMES,
    HOSTILE,
    MANY,
    MOST,
    SHORT,
    accuracy_frame,
    assert_readable,
    axes_frame,
    density_frame,
    depth_frame,
    distributions_frame,
    drawn_texts,
    drift_frame,
    filters_frame,
    map_frame,
    pca_frame,
    quality_frame,
    texts_of,
)
from warehouse import figures
from warehouse.errors import QueryError
from warehouse.figures import labels


@pytest.mark.parametrize(
    ("names", "width"),
    [
        pytest.param(SHORT, 7.0, id="short, wide"),
        pytest.param(HOSTILE, 3.5, id="hostile, narrow"),
        pytest.param(HOSTILE, 7.0, id="hostile, wide", marks=pytest.mark.slow),
        pytest.param(MANY, 3.5, id="many, narrow"),
        pytest.param(MANY, 7.0, id="many, wide", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", FRAMES)
def test_no_text_covers_another_at_any_width(name: str, names: list[str], width: float) -> None:
    frame = FRAMES[name](names[: MOST.get(name, 100)])
    title = f"A title about {names[0]} {names[1]}, where depth_decile > 5 and task <> '$a'"
    figure = getattr(figures, name)(frame, title=title, note=f"Not shown: {', '.join(names[:5])}.", width=width)
    assert figure.get_figwidth() == width
    assert_readable(figure)


@pytest.mark.parametrize("name", FRAMES)
def test_a_figure_is_the_same_bytes_every_time_and_leaves_settings_alone(name: str) -> None:
    before = dict(mpl.rcParams)
    one, other = (getattr(figures, name)(FRAMES[name](SHORT), width=3.5) for _ in range(2))
    assert saved(one, "svg") == saved(other, "svg")
    assert dict(mpl.rcParams) == before
    assert_readable(one)


@pytest.mark.parametrize(("format_", "signature"), [("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_every_format_is_written_the_same_every_time(format_: str, signature: bytes) -> None:
    one, other = (saved(figures.drift_box_plot(axes_frame(SHORT)), format_) for _ in range(2))
    assert one == other
    assert one.startswith(signature)


def saved(figure: Figure, format_: str) -> bytes:
    stream = io.BytesIO()
    figures.save(figure, stream, format_)
    return stream.getvalue()


@pytest.mark.parametrize("name", FRAMES)
def test_an_empty_frame_or_one_without_a_column_is_refused_by_name(name: str) -> None:
    frame = FRAMES[name](SHORT)
    with pytest.raises(QueryError, match=f"{name} has nothing to draw"):
        getattr(figures, name)(frame.clear())
    with pytest.raises(QueryError, match=rf"{name} needs a column '\w+'; it has unrelated"):
        getattr(figures, name)(pl.DataFrame({"unrelated": [1]}))


@pytest.mark.parametrize("name", ["eigenimages", "drift_box_plot", "quality_by_depth", "accuracy"])
def test_more_groups_than_can_be_told_apart_are_refused_with_the_count(name: str) -> None:
    with pytest.raises(QueryError, match=f"{name} shows at most {MOST[name]} groups, not 100"):
        getattr(figures, name)(FRAMES[name](MANY))


@pytest.mark.parametrize("width", [0.5, 50, float("nan")])
def test_a_width_that_no_page_has_is_refused(width: float) -> None:
    with pytest.raises(QueryError, match=r"2\.5 to 20 inches"):
        figures.ridge(distributions_frame(SHORT), width=width)


def test_a_relation_is_as_good_as_a_frame(wh: warehouse.Warehouse) -> None:
    relation = wh.sql("from drift(task)")
    one, other = (figures.drift_heatmap(rows) for rows in (relation, relation.pl()))
    assert texts_of(one) == texts_of(other)


@pytest.mark.parametrize("value", ["[task, 'x']", "case when conv_depth = 0 then 'nan'::float else 1 end", "true"])
def test_groups_may_be_of_any_type(wh: warehouse.Warehouse, value: str) -> None:
    frame = wh.sql(f"from pca({value})").pl()
    assert_readable(figures.eigenimages(frame))
    assert_readable(figures.explained_variance(frame))


def test_lines_of_explained_variance_are_the_cumulative_ratios() -> None:
    frame = pca_frame(SHORT)
    (axes,) = figures.explained_variance(frame).axes
    for group, line in zip(SHORT, axes.lines, strict=True):
        expected = frame.filter(pl.col("grp") == group)
        np.testing.assert_array_equal(line.get_xdata(), range(9))
        np.testing.assert_allclose(line.get_ydata(), np.cumsum(expected["explained_variance_ratio"]))
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == len(SHORT)


def test_of_many_groups_the_extremes_are_named_and_the_rest_is_grey() -> None:
    frame = pca_frame(MANY)
    figure = figures.explained_variance(frame)
    first = frame.filter(pl.col("component") == 0).sort("cumulative_ratio")["grp"].to_list()
    (legend,) = figure.legends
    # what the names have in common is left out, and their numbers are not
    named = {re.search(r"\d+", text.get_text())[0] for text in legend.get_texts()}
    assert named == {name[17:20] for name in first[:5] + first[-5:]}
    assert "100 groups" in texts_of(figure)


def meshes(figure: Figure) -> list[QuadMesh]:
    return [mesh for mesh in figure.axes[0].collections if isinstance(mesh, QuadMesh)]


def test_eigenimages_are_the_loadings_row_by_row() -> None:
    frame = pca_frame(SHORT)
    figure = figures.eigenimages(frame, width=7)
    (mesh,) = meshes(figure)
    shown = mesh.get_array().reshape(len(SHORT), 4, 9, 4)[:, :3, :, :3]
    for row in frame.to_dicts():
        image = shown[SHORT.index(row["grp"]), :, row["component"], :]
        np.testing.assert_array_equal(image, np.reshape(row["loading"], (3, 3)))
    assert mesh.get_clim() == (-1, 1)
    assert figure.axes[0].yaxis.get_inverted()
    percentages = sorted(text.get_text() for text in figure.axes[0].texts)
    assert percentages == sorted(f"{100 * ratio:.1f}%" for ratio in frame["explained_variance_ratio"])


def test_filters_are_drawn_in_order_with_colours_symmetric_about_zero() -> None:
    frame = filters_frame([])
    (mesh,) = meshes(figures.filter_grid(frame, width=3.5))
    shown = mesh.get_array().reshape(4, 4, 16, 4)[:, :3, :, :3].transpose(0, 2, 1, 3).reshape(-1, 9)
    np.testing.assert_array_equal(shown[:50], frame.to_numpy())
    assert shown[50:].mask.all()
    largest = np.abs(frame.to_numpy()).max()
    assert mesh.get_clim() == pytest.approx((-largest, largest))


def test_a_large_layer_is_shown_in_part_and_the_note_says_so() -> None:
    frame = pl.concat([filters_frame([])] * 10)
    assert "The first 400 of 500 filters." in texts_of(figures.filter_grid(frame))
    told = frame.head(400).with_columns(n_filters=12_345)
    assert "The first 400 of 12,345 filters." in texts_of(figures.filter_grid(told))


def test_a_layer_of_zeros_is_drawn() -> None:
    assert_readable(figures.filter_grid(filters_frame([]) * 0))


def test_silhouettes_are_the_histograms_on_a_common_range() -> None:
    frame = distributions_frame(SHORT)
    figure = figures.ridge(frame)
    assert len(figure.axes) == 9
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for component, axes in enumerate(figure.axes):
        (silhouettes,) = (drawn for drawn in axes.collections if isinstance(drawn, PolyCollection))
        column = frame.filter(pl.col("component") == component)
        peaks = [column.filter(pl.col("grp") == group)["density"].max() for group in SHORT]
        for row, (group, path) in enumerate(zip(SHORT, silhouettes.get_paths(), strict=True)):
            bins = column.filter(pl.col("grp") == group)
            heights = dict(zip((bins["bin_lo"] + bins["bin_hi"]) / 2, bins["density"], strict=True))
            x, y = path.vertices.T
            top = row - y[y < row]
            expected = np.array([heights[place] for place in x[y < row]])
            cut = 1.5 * np.median(peaks)
            np.testing.assert_allclose(top / top.max(), np.minimum(expected, cut) / min(expected.max(), cut))


def test_spikes_are_cut_and_counted() -> None:
    frame = distributions_frame(["a", "b", "c"])
    spiky = (pl.col("grp") == "b") & (pl.col("component") == 4) & (pl.col("bin") == 35)
    frame = frame.with_columns(density=pl.when(spiky).then(100.0).otherwise(pl.col("density")))
    assert " spikes are cut at 1.5 times the median" in texts_of(figures.ridge(frame))


@pytest.mark.parametrize("order", ["mean", "given"])
def test_heatmap_holds_the_drift_in_the_order_asked_for(order: str) -> None:
    groups = [f"g{i}" for i in range(8)]
    frame = drift_frame(groups)
    figure = figures.drift_heatmap(frame, order=order)
    axes = figure.axes[0]
    matrix = frame.pivot(on="b", index="a", values="drift").drop("a").to_numpy()
    means = matrix.sum(axis=1) / 7
    ranks = np.argsort(means) if order == "mean" else np.arange(8)
    np.testing.assert_array_equal(axes.images[0].get_array(), matrix[np.ix_(ranks, ranks)])
    assert [label.get_text() for label in axes.get_yticklabels()] == [groups[i] for i in ranks]
    assert [text.get_text() for text in axes.texts] == [f"{v:.2f}" for v in matrix[np.ix_(ranks, ranks)].ravel()]
    assert figure.axes[1].get_ylabel() == "drift (nats)"


def test_heatmap_prints_no_values_where_they_do_not_fit_and_says_which_names_it_leaves_out() -> None:
    figure = figures.drift_heatmap(drift_frame(MANY), width=3.5)
    assert not figure.axes[0].texts
    assert "Of 100 groups one in " in texts_of(figure)


def test_an_outlier_does_not_take_all_colours() -> None:
    frame = drift_frame(MANY[:8])
    frame = frame.with_columns(drift=pl.when(pl.col("drift") == pl.col("drift").max()).then(99.0).otherwise("drift"))
    figure = figures.drift_heatmap(frame)
    off = frame.filter(pl.col("a") != pl.col("b"))["drift"]
    assert figure.axes[0].images[0].get_clim() == pytest.approx((0, np.quantile(off, 0.95)))
    assert "the largest drift is 99" in texts_of(figure)
    fixed = figures.drift_heatmap(frame, upper=2.5)
    assert fixed.axes[0].images[0].get_clim() == (0, 2.5)


def test_heatmap_refuses_a_single_group_and_an_unknown_order() -> None:
    with pytest.raises(QueryError, match="there is only one: alone"):
        figures.drift_heatmap(drift_frame(["alone"]))
    with pytest.raises(QueryError, match="mean or given, not 'size'"):
        figures.drift_heatmap(drift_frame(SHORT), order="size")  # type: ignore[arg-type]


def test_equal_groups_make_a_heatmap_of_zeros() -> None:
    figure = figures.drift_heatmap(drift_frame(SHORT).with_columns(drift=0.0))
    assert_readable(figure)
    assert not figure.axes[0].images[0].get_array().any()


def test_boxes_of_drift_are_quartiles_with_means() -> None:
    frame = axes_frame(SHORT)
    (axes,) = figures.drift_box_plot(frame).axes
    boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    for name, box, mean in zip(SHORT, boxes, means, strict=True):
        drift = frame.filter(pl.col("axis") == name)["drift"].to_numpy()
        ends = box.get_path().vertices[:, 0]
        np.testing.assert_allclose([ends.min(), ends.max()], np.quantile(drift, [0.25, 0.75]))
        assert mean == pytest.approx(drift.mean())
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{name}\n10 pairs" for name in SHORT]


def test_a_single_axis_needs_no_column_for_it() -> None:
    frame = drift_frame(SHORT).filter(pl.col("a") < pl.col("b"))
    assert "3 pairs" in texts_of(figures.drift_box_plot(frame))


def test_bars_of_drift_by_depth_are_the_drifts_of_the_largest_pairs() -> None:
    frame = depth_frame([f"g{i}" for i in range(5)])
    figure = figures.drift_by_depth(frame)
    means = frame.group_by("a", "b").agg(pl.col("drift").mean()).sort("drift", descending=True).head(6)
    bars = list(figure.axes[0].containers)
    for (a, b, _), bar in zip(means.rows(), bars, strict=True):
        pair = frame.filter((pl.col("a") == a) & (pl.col("b") == b)).sort("depth_decile")
        np.testing.assert_array_equal([patch.get_height() for patch in bar], pair["drift"])
    assert "The 6 of 10 pairs with the largest mean drift." in texts_of(figure)
    assert len({(bar[0].get_facecolor(), bar[0].get_hatch()) for bar in bars}) == 6


def test_each_pair_is_drawn_once_though_both_orders_are_given() -> None:
    frame = depth_frame(["x", "y"])
    both = pl.concat([frame, frame.rename({"a": "b", "b": "a"}).select(frame.columns)])
    assert len(figures.drift_by_depth(both).axes[0].containers) == 1
    with pytest.raises(QueryError, match="at no depth do two of them"):
        figures.drift_by_depth(frame.with_columns(b=pl.col("a")))


def test_a_pair_without_filters_at_a_depth_has_no_bar_there() -> None:
    frame = depth_frame(["x", "y"]).with_columns(
        drift=pl.when(pl.col("depth_decile") == 3).then(None).otherwise(pl.col("drift"))
    )
    figure = figures.drift_by_depth(frame)
    heights = [bar.get_height() for bar in figure.axes[0].containers[0]]
    assert np.flatnonzero(np.isnan(heights)).tolist() == [2]
    assert "No bar where one of the two has no filters." in texts_of(figure)


@pytest.mark.parametrize("groups", [SHORT, [f"g{i}" for i in range(7)]], ids=["side by side", "panels"])
def test_boxes_of_quality_are_the_statistics_of_the_frame(groups: list[str]) -> None:
    frame = quality_frame(groups)
    figure = figures.quality_by_depth(frame, "sparsity")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == (1 if len(groups) == 3 else len(groups))
    for position, group in enumerate(groups):
        axes = shown[0] if len(shown) == 1 else shown[position]
        n = 11
        start = position * n if len(shown) == 1 else 0
        boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)][start : start + n]
        means = [line for line in axes.lines if line.get_marker() == "D"][start : start + n]
        rows = frame.filter(pl.col("grp") == group).sort("depth").to_dicts()
        for row, box, mean in zip(rows, boxes, means, strict=True):
            ends = box.get_path().vertices[:, 1]
            assert (ends.min(), ends.max()) == pytest.approx((row["q1"], row["q3"]))
            assert mean.get_ydata()[0] == pytest.approx(row["mean"])
            assert row["depth"] - 0.5 < mean.get_xdata()[0] < row["depth"] + 0.5
        whiskers = {float(y) for line in axes.lines for y in line.get_ydata()}
        assert {row["min"] for row in rows} | {row["max"] for row in rows} <= whiskers


def test_an_unknown_metric_is_refused_with_those_there_are() -> None:
    with pytest.raises(QueryError, match="no metric is called 'density'; it has sparsity"):
        figures.quality_by_depth(quality_frame(SHORT), "density")


def test_points_of_accuracy_are_the_models_with_both_numbers() -> None:
    frame = accuracy_frame(["true", "false"]).with_columns(
        clean_accuracy=pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise(pl.col("clean_accuracy"))
    )
    figure = figures.accuracy(frame)
    for group, line in zip(["false", "true"], figure.axes[0].lines, strict=True):
        expected = frame.filter((pl.col("robust") == group) & pl.col("clean_accuracy").is_not_null())
        np.testing.assert_array_equal(line.get_xdata(), expected["sparsity"])
        np.testing.assert_array_equal(line.get_ydata(), expected["clean_accuracy"])
    assert "3 of 10 models lack sparsity or clean_accuracy." in texts_of(figure)
    assert "robust: true" in texts_of(figure)


def test_accuracy_needs_no_column_for_colours() -> None:
    (line,) = figures.accuracy(accuracy_frame(["x"]).drop("robust")).axes[0].lines
    assert len(line.get_xdata()) == 5
    with pytest.raises(QueryError, match="accuracy needs a column 'robst'; did you mean 'robust'"):
        figures.accuracy(accuracy_frame(["x"]), colour="robst")


def test_density_shows_the_counts_on_a_logarithmic_scale() -> None:
    frame = density_frame([])
    figure = figures.density(frame)
    (image,) = figure.axes[0].images
    shown = image.get_array()
    counts = {(x, y): n for x, y, n in frame.select("x_bin", "y_bin", "n").rows()}
    left, bottom = frame["x_bin"].min(), frame["y_bin"].min()
    assert shown.count() == len(counts)
    for (row, column), n in np.ndenumerate(shown.filled(0)):
        assert n == counts.get((left + column, bottom + row), 0)
    edges = [frame["x_lo"].min(), frame["x_hi"].max(), frame["y_lo"].min(), frame["y_hi"].max()]
    assert list(image.get_extent()) == edges
    assert isinstance(image.norm, LogNorm)
    assert {"component 2", "component 5"} <= {text for text, _ in drawn_texts(figure)}


def test_map_shows_every_group_and_counts_the_names() -> None:
    frame = map_frame(MANY)
    figure = figures.model_map(frame)
    (axes,) = figure.axes
    np.testing.assert_array_equal(np.column_stack(axes.lines[0].get_data()), frame.select("x", "y").to_numpy())
    said = texts_of(figure)
    assert f"{len(axes.texts)} of 100 groups are named" in said
    assert len(axes.texts) > 10
    assert "The plane holds 61 % of the variance." in said
    few = figures.model_map(map_frame(SHORT))
    assert len(few.axes[0].texts) == 3
    assert "are named" not in texts_of(few)


def test_missing_glyphs_are_replaced_and_labels_are_one_line() -> None:
    assert labels.label("a\nb\tc  d") == "a b c d"
    assert labels.label("名🙂x") == "\ufffd\ufffdx"
    assert [labels.label(value) for value in (None, True, 0.5, 3, "")] == ["NULL", "true", "0.5", "3", "''"]


def test_names_that_would_look_alike_keep_what_tells_them_apart() -> None:
    levels = [f"Super Mario Bros {world}-{level} (game frames)" for world in range(1, 9) for level in (1, 3)]
    short = labels.shorten_labels(["photos", *levels, levels[0]], 7, 1.0)
    assert short[0] == "photos"
    assert len(set(short[1:-1])) == len(levels)
    assert short[-1] == short[1]
    assert all(labels.text_width(name, 7) <= 1.0 for name in short)
    assert [re.search(r"\d-\d", name)[0] for name in short[1:-1]] == [level[17:20] for level in levels]


@pytest.mark.parametrize("inches", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("text", ["short", "a much longer text than that, of several words", "x" * 200])
def test_shortened_text_keeps_both_ends_and_fits(text: str, inches: float) -> None:
    short = labels.shorten(text, 8, inches)
    assert labels.text_width(short, 8) <= inches
    if short != text:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)


def test_without_matplotlib_all_is_imported_but_figures_which_tell_how_to_get_it() -> None:
    code = """
import sys, warehouse, warehouse.cli, warehouse.figure_cli, warehouse.report
print([name for name in sys.modules if name.startswith("matplotlib")])
sys.modules["matplotlib"] = None
try:
    import warehouse.figures
except warehouse.WarehouseError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[]",
        "figures need matplotlib; get it with: pip install 'cnn-filter-warehouse[figures]'",
    ]
