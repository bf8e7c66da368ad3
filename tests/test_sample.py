import errno
import os
import resource
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

from warehouse import sample
from warehouse.errors import SourceError
from warehouse.sample import LAYOUTS, layer_filters, write_sample
from warehouse.sample_plan import plan_sample, sample_frame

SHARED_DATA = Path(os.environ.get("WAREHOUSE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FILTERS, LAYERS, MODELS = 60_000, 400, 40


class Sample:
    """A written sample, read with pandas and h5py; ``layers`` holds the filters ``(n, 9)`` of each row."""

    def __init__(self, path, layout):
        self.path, self.layout = path, layout
        write_sample(path, filters=FILTERS, layers=LAYERS, models=MODELS, layout=layout)
        self.meta = pd.read_hdf(path, "meta")
        self.rows = self.meta.reset_index()
        with h5py.File(path) as file:
            self.filters = file["filters"][:]
        self.bounds = np.array([text.split(":") for text in self.meta["filter_ids"]], dtype=int)
        self.layers = [self.filters[a : b + 1].reshape(-1, 9).astype(float) for a, b in self.bounds]


@pytest.fixture(scope="module")
def sample_of(tmp_path_factory):
    """The sample of a layout, written once."""
    return cache(lambda layout: Sample(tmp_path_factory.mktemp(layout) / "dataset.h5", layout))


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, sample_of):
    return sample_of(request.param)


@pytest.fixture(scope="module")
def v1(sample_of):
    return sample_of("v1")


@pytest.fixture(scope="module")
def lens(sample_of):
    return sample_of("lens")


def variance_entropy(layer):
    if len(layer) < 2 or not layer.any():
        return 0.0
    eigenvalues = np.linalg.eigvalsh(np.cov(layer.T)).clip(0)
    shares = eigenvalues[eigenvalues > 0] / eigenvalues.sum()
    return float(-(shares * np.log10(shares)).sum())


def sparsity(layer):
    peaks = np.abs(layer).max(axis=1)
    return float((peaks < 0.01 * peaks.max()).mean()) if layer.any() else 1.0


def test_totals_are_exact_and_ids_end_inclusive_and_without_gaps(written):
    assert written.filters.shape == (FILTERS, 3, 3)
    assert len(written.meta) == LAYERS
    assert written.rows["model_id"].nunique() == MODELS
    starts, ends = written.bounds.T
    assert starts[0] == 0
    assert ends[-1] == FILTERS - 1
    np.testing.assert_array_equal(starts[1:], ends[:-1] + 1)
    assert (np.diff(written.rows["model_id"]) >= 0).all()


def test_pandas_reads_what_was_meant(written):
    plan = plan_sample(filters=FILTERS, layers=LAYERS, models=MODELS, seed=0, layout=written.layout)
    index, columns = sample_frame(plan)
    assert written.meta.index.names == list(index)
    assert list(written.meta.columns) == list(columns)
    for name, values in (index | columns).items():
        meant = pd.Series(values, name=name)
        pd.testing.assert_series_equal(written.rows[name], meant, check_dtype=values.dtype != object)


def test_filters_are_contiguous_finite_and_of_the_genuine_type(written):
    with h5py.File(written.path) as file:
        assert file["filters"].chunks is None
        assert file["filters"].dtype == (np.float32 if written.layout == "lens" else np.float64)
    assert np.isfinite(written.filters).all()
    np.testing.assert_array_equal(written.filters, written.filters.astype(np.float32))


def test_the_file_says_that_it_is_synthetic(written):
    with h5py.File(written.path) as file:
        assert b"Synthetic" in file.attrs["TITLE"]
        assert f"layout={written.layout} filters={FILTERS}" in np.asarray(file.attrs["synthetic"]).astype(str).item()
    for column in ("model", "Name", "Accessible"):
        assert written.meta[column].str.contains("synthetic").all()
    assert written.meta["Paper"].str.contains("synthetic").any()


@pytest.mark.parametrize(("layout", "genuine"), [("v1", "zoo"), ("lens", "lens")])
def test_nodes_have_the_attributes_of_genuine_files(layout, genuine, v1, lens):
    source = SHARED_DATA / f"{genuine}.h5"
    if not source.exists():
        pytest.skip(f"{source} is absent")

    def attributes(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, node: found.update({name: set(node.attrs)}))
            found[""] = set(file.attrs) - {"synthetic"}
        return found

    assert attributes({"v1": v1, "lens": lens}[layout].path) == attributes(source)


def test_a_default_sample_has_the_tasks_and_categories_of_the_genuine_data(v1):
    models = v1.rows.drop_duplicates("model_id")
    tasks = models["Task"].str.replace(".*Segmentation.*", "Segmentation", regex=True)
    assert tasks.nunique() == 11
    assert models["Task"].nunique() > 11
    assert models["Visual Category"].nunique() == 16
    assert ((tasks == "Classification") & (models["Visual Category"] == "natural")).mean() >= 0.4
    assert models.head(8)["Task"].nunique() >= 4
    assert models["Training-Dataset"].str.contains(", ").any()


def test_labels_have_the_defects_of_the_genuine_data(v1):
    assert (v1.meta["Training-Dataset"] == "?").any()
    assert (v1.meta["Paper"] == "").any()
    assert v1.meta["Pretraining-Dataset"].isna().any()
    operators = v1.meta[["Relu", "Concat", "Clip", "(7, 7) filters"]]
    assert (operators.isna().any() & operators.notna().any()).all()


def test_v0_1_names_the_category_datatype_and_the_fractals_formula(tmp_path):
    write_sample(tmp_path / "a.h5", filters=4_000, layers=80, models=40, layout="v0.1")
    meta = pd.read_hdf(tmp_path / "a.h5", "meta")
    assert "Visual Category" not in meta.columns
    assert "formula" in set(meta["Datatype"])
    assert "fractals" not in set(meta["Datatype"])
    assert meta["Task"].str.replace(".*Segmentation.*", "Segmentation", regex=True).nunique() == 10


def test_depths_are_irregular_as_in_real_networks(written):
    by_model = written.rows.groupby("model_id")["conv_depth"]
    assert not by_model.apply(lambda depths: depths.is_monotonic_increasing).all()
    assert by_model.min().max() == 1
    assert written.rows.duplicated(["model_id", "conv_depth"]).any()
    has_one_depth = written.rows["conv_depth_norm"].isna()
    assert has_one_depth.any()
    assert (written.rows.loc[has_one_depth, "conv_depth"] == 0).all()
    assert written.rows["conv_depth_norm"].dropna().between(0, 1).all()


def test_models_and_layers_are_of_uneven_sizes(v1):
    n_filters = np.diff(v1.bounds, axis=1).ravel() + 1
    assert np.quantile(n_filters, 0.9) > 8 * np.quantile(n_filters, 0.1)
    layers_of_model = v1.rows.groupby("model_id").size()
    assert layers_of_model.max() >= 2 * layers_of_model.median()
    assert layers_of_model.min() == 1
    totals = pd.Series(n_filters).groupby(v1.rows["model_id"]).transform("sum")
    np.testing.assert_array_equal(v1.rows["(3, 3) filters"], totals)


def test_lens_layers_have_as_many_filters_as_channel_pairs(lens):
    n_filters = np.diff(lens.bounds, axis=1).ravel() + 1
    np.testing.assert_array_equal(lens.rows["in_channels"] * lens.rows["out_channels"], n_filters)
    assert not lens.rows.duplicated(["model_id", "layer_id"]).any()
    assert lens.meta["Pretraining-Dataset"].dtype == bool


def test_lens_robustness_is_known_for_all_but_two_models(lens):
    models = lens.rows.drop_duplicates("model_id")
    assert models["Robust"].isna().sum() == 2
    assert set(models["Robust"].dropna()) == {True, False}
    of_layer = np.array([sparsity(layer) for layer in lens.layers])
    assert of_layer[lens.rows["Robust"] == True].mean() < 0.6 * of_layer[lens.rows["Robust"] == False].mean()  # noqa: E712


def test_sparsity_and_entropy_vary_as_in_real_models(v1):
    sparsities = np.array([sparsity(layer) for layer in v1.layers])
    entropies = np.array([variance_entropy(layer) for layer in v1.layers])
    depth = v1.rows["conv_depth_norm"].to_numpy()

    assert (sparsities == 0).any()
    assert ((sparsities > 0.6) & (sparsities < 1)).any()
    assert sparsities[depth > 0.75].mean() > 3 * sparsities[depth < 0.25].mean()
    assert np.quantile(entropies, 0.1) < 0.55
    assert np.quantile(entropies, 0.99) > 0.92
    assert 0.6 < np.median(entropies) < 0.85
    all_zero = [not layer.any() for layer in v1.layers]
    assert 0 < sum(all_zero) < 0.05 * LAYERS
    scales = [layer.std() for layer in v1.layers if layer.any()]
    assert np.quantile(scales, 0.95) > 4 * np.quantile(scales, 0.05)


def test_an_untrained_model_is_random(v1):
    untrained = v1.rows["Name"].str.contains("untrained")
    assert v1.rows.loc[untrained, "model_id"].nunique() == 1
    large = [v1.layers[row] for row in np.flatnonzero(untrained) if len(v1.layers[row]) > 300]
    assert large
    assert all(variance_entropy(layer) > 0.93 for layer in large)
    assert all(sparsity(layer) == 0 for layer in large)


def test_the_same_arguments_give_the_same_data_and_another_seed_gives_other(tmp_path):
    filters, frames = {}, {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sample(tmp_path / name, filters=3_000, layers=30, models=6, seed=seed)
        frames[name] = pd.read_hdf(tmp_path / name, "meta")
        with h5py.File(tmp_path / name) as file:
            filters[name] = file["filters"][:]
    np.testing.assert_array_equal(filters["a"], filters["b"])
    pd.testing.assert_frame_equal(frames["a"], frames["b"])
    assert not np.array_equal(filters["a"], filters["c"])


def test_a_layer_can_be_drawn_on_its_own(v1):
    plan = plan_sample(filters=FILTERS, layers=LAYERS, models=MODELS, seed=0, layout="v1")
    for row in (LAYERS - 1, 7, 200):
        np.testing.assert_array_equal(np.concatenate(list(layer_filters(plan, row))), v1.layers[row])


def test_a_layer_larger_than_a_block_comes_in_blocks_and_is_not_repetitive(tmp_path):
    n_filters = 2 * sample._BLOCK_FILTERS + 5
    plan = plan_sample(filters=n_filters, layers=1, models=1, seed=0, layout="v1")
    blocks = list(layer_filters(plan, 0))
    assert [len(block) for block in blocks] == [sample._BLOCK_FILTERS, sample._BLOCK_FILTERS, 5]
    assert not np.array_equal(blocks[0], blocks[1])
    write_sample(tmp_path / "a.h5", filters=n_filters, layers=1, models=1)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["filters"][:].reshape(-1, 9), np.concatenate(blocks))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("filters", "layers", "models"),
    [(1, 1, 1), (9, 1, 1), (7, 7, 1), (7, 7, 7), (101, 30, 7), (99_991, 8, 2)],
)
def test_any_possible_totals_are_hit_exactly(layout, filters, layers, models):
    plan = plan_sample(filters=filters, layers=layers, models=models, seed=3, layout=layout)
    n_filters = plan.in_channels * plan.out_channels
    assert n_filters.sum() == filters
    assert (n_filters >= 1).all()
    assert len(n_filters) == layers
    np.testing.assert_array_equal(np.unique(plan.model_id), np.arange(models))


def test_the_smallest_sample_is_readable(tmp_path):
    write_sample(tmp_path / "a.h5", filters=1, layers=1, models=1)
    assert len(pd.read_hdf(tmp_path / "a.h5", "meta")) == 1


def test_progress_rises_to_the_total(tmp_path):
    calls = []
    write_sample(
        tmp_path / "a.h5",
        filters=500,
        layers=9,
        models=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == sorted(calls)
    assert calls[-1] == (500, 500)
    assert {total for _, total in calls} == {500}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 10, "layers": 20, "models": 5}, "10 filters, 20 layers and 5 models"),
        ({"models": 0}, "models >= 1"),
        ({"seed": -1}, "seed"),
        ({"layout": "v2"}, "v1, v0.1, lens"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(SourceError, match=message):
        write_sample(tmp_path / "a.h5", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_overwritten(tmp_path):
    target = tmp_path / "precious.h5"
    target.write_text("precious")
    with pytest.raises(SourceError, match=r"precious\.h5 exists already"):
        write_sample(target)
    assert target.read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        write_sample(tmp_path / "nowhere" / "a.h5")


def test_too_small_a_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(SourceError, match=r"needs 0\.02 GB and its disk has 0\.00 GB left"):
        write_sample(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_gives_one_line_and_leaves_nothing_behind(tmp_path):
    def fill_up(done, total):
        if done > total / 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SourceError, match=r"cannot write the sample .*a\.h5: No space left on device$"):
        write_sample(tmp_path / "a.h5", progress=fill_up)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [20_000, 2_000_000], ids=["metadata", "filters"])
def test_a_limit_on_the_size_of_files_gives_one_line_and_leaves_nothing_behind(tmp_path, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SourceError, match=r"cannot write the sample .*a\.h5: File too large$"):
            write_sample(tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing_behind(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "a.h5", progress=interrupt)
    assert not list(tmp_path.iterdir())
