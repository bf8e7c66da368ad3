import math
import os
import pickletools
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tables
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warehouse.frame_writer import write_frame

SHARED_DATA = Path(os.environ.get("WAREHOUSE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def write(path, index, columns):
    with tables.open_file(path, "w") as file:
        write_frame(file, "meta", index, columns)
    return path


def read_with_pandas(path):
    frame = pd.read_hdf(path, "meta")
    assert isinstance(frame, pd.DataFrame)
    return frame


def assert_equal_with_missing(read, meant):
    expected = pd.Series(meant, index=read.index, name=read.name)
    pd.testing.assert_series_equal(read, expected, check_dtype=meant.dtype != object)


def layout_of(group):
    """Every node of an HDF5 group with its kind, storage type and attributes; pickled cells left out."""
    nodes = {}

    def note(name, node):
        attributes = {key: (np.asarray(value).dtype, value) for key, value in node.attrs.items()}
        is_array = isinstance(node, h5py.Dataset)
        shape, dtype = (node.shape, node.dtype) if is_array else (None, None)
        nodes[name] = (shape, dtype, attributes)

    note("", group)
    group.visititems(note)
    return nodes


def assert_same_layout(written, genuine):
    assert written.keys() == genuine.keys()
    for name, (shape, dtype, attributes) in genuine.items():
        assert written[name][:2] == (shape, dtype), name
        assert written[name][2].keys() == attributes.keys(), name
        for key, (attribute_dtype, value) in attributes.items():
            assert written[name][2][key][0] == attribute_dtype, (name, key)
            if not isinstance(value, h5py.Empty):
                assert written[name][2][key][1] == value, (name, key)


def every_kind_of_column():
    index = {
        "model_id": np.array([7, 7, 3, 3]),
        "conv_depth": np.array([1, 0, 0, 0]),
        "conv_depth_norm": np.array([1.0, 0.0, np.nan, np.nan]),
    }
    columns = {
        "filter_ids": np.array(["0:8", "9:9", "10:12", "13:20"], dtype=object),
        "(3, 3) filters": np.array([1.5, np.nan, 2.0, -0.0]),
        "Pretraining-Dataset": np.array([True, False, False, True]),
        "in_channels": np.array([1, 2, 3, 4]),
        "Gemm": np.array([np.nan, 1.0, np.nan, 2.0]),
        "Robust": np.array([True, np.nan, False, np.nan], dtype=object),
        "größe": np.array([1, -2, 3, 4], dtype=np.int32),
    }
    return index, columns


def test_pandas_reads_back_every_kind_of_column(tmp_path):
    index, columns = every_kind_of_column()
    frame = read_with_pandas(write(tmp_path / "a.h5", index, columns))

    assert list(frame.columns) == list(columns)
    assert frame.index.names == list(index)
    for name, values in index.items():
        np.testing.assert_array_equal(frame.index.get_level_values(name), values)
    for name, values in columns.items():
        assert_equal_with_missing(frame[name], values)


def test_the_layout_is_the_one_that_pandas_writes(tmp_path):
    index, unsorted_columns = every_kind_of_column()
    # The order of pandas' blocks depends on how a frame came about, unless its columns are in that order.
    columns = dict(sorted(unsorted_columns.items(), key=lambda item: item[1].dtype.name))
    written = write(tmp_path / "ours.h5", index, columns)
    rows = pd.MultiIndex.from_arrays(list(index.values()), names=list(index))
    frame = pd.DataFrame({name: pd.Series(values, index=rows, dtype=values.dtype) for name, values in columns.items()})
    frame.columns = frame.columns.astype(object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        frame.to_hdf(tmp_path / "theirs.h5", key="meta", format="fixed")

    with h5py.File(written) as a, h5py.File(tmp_path / "theirs.h5") as b:
        ours, theirs = layout_of(a["meta"]), layout_of(b["meta"])
    for _, _, attributes in (*ours.values(), *theirs.values()):
        # The genuine files were written before pandas added the one and dropped the other.
        attributes.pop("nan_rep", None)
        attributes.pop("pandas_version", None)
    assert_same_layout(ours, theirs)


@pytest.mark.parametrize("name", ["zoo", "lens", "onnx"])
def test_a_genuine_frame_written_again_has_the_same_layout(tmp_path, name):
    source = SHARED_DATA / f"{name}.h5"
    if not source.exists():
        pytest.skip(f"{source} is absent")
    genuine = read_with_pandas(source)
    index = {level: genuine.index.get_level_values(level).to_numpy() for level in genuine.index.names}
    with h5py.File(source) as file:
        stored_as = {
            item.decode(): "O" if values.dtype == object else {"u1": "?"}.get(values.dtype.str[1:], values.dtype)
            for block in range(file["meta"].attrs["nblocks"])
            for values in [file[f"meta/block{block}_values"]]
            for item in file[f"meta/block{block}_items"][:]
        }
    columns = {column: genuine[column].to_numpy(dtype=stored_as[column]) for column in genuine.columns}

    written = write(tmp_path / "again.h5", index, columns)
    pd.testing.assert_frame_equal(read_with_pandas(written), genuine)
    with h5py.File(written) as a, h5py.File(source) as b:
        assert_same_layout(layout_of(a["meta"]), layout_of(b["meta"]))


def test_an_object_block_is_one_pickle_that_names_nothing_but_numpy_arrays(tmp_path):
    with h5py.File(write(tmp_path / "a.h5", *every_kind_of_column())) as file:
        (number,) = [k for k in range(5) if file[f"meta/block{k}_values"].dtype == object]
        node = file[f"meta/block{number}_values"]
        assert node.shape == (1,)
        assert node.attrs["PSEUDOATOM"] == b"object"
        texts = {argument for _, argument, _ in pickletools.genops(node[0].tobytes()) if isinstance(argument, str)}
    assert texts & {"numpy._core.multiarray", "numpy.core.multiarray"}
    assert texts - {"filter_ids"} <= {
        *(
            "numpy._core.multiarray",
            "numpy.core.multiarray",
            "_reconstruct",
            "numpy",
            "ndarray",
            "dtype",
            "O8",
            "|",
        ),
        *("0:8", "9:9", "10:12", "13:20"),
    }


@settings(max_examples=25, deadline=None)
@given(
    level=hnp.arrays(np.float64, st.integers(1, 300), elements=st.sampled_from([math.nan, *range(200)])),
    seed=st.integers(0, 9),
)
def test_levels_survive_with_missing_values_and_any_number_of_distinct_ones(tmp_path_factory, level, seed):
    other = np.random.default_rng(seed).integers(-5, 5, len(level))
    path = tmp_path_factory.mktemp("levels") / "a.h5"
    frame = read_with_pandas(write(path, {"norm": level, "id": other}, {"x": other * 2}))
    np.testing.assert_array_equal(frame.index.get_level_values("norm"), level)
    np.testing.assert_array_equal(frame.index.get_level_values("id"), other)
    np.testing.assert_array_equal(frame["x"], other * 2)


def test_a_level_without_any_value_reads_as_missing(tmp_path):
    path = write(tmp_path / "a.h5", {"id": np.array([0]), "norm": np.array([np.nan])}, {"x": np.array([1.0])})
    assert read_with_pandas(path).index.get_level_values("norm").isna().all()


def test_a_frame_without_rows_keeps_its_columns(tmp_path):
    columns = {"x": np.array([], dtype=float), "text": np.array([], dtype=object)}
    frame = read_with_pandas(write(tmp_path / "a.h5", {"id": np.array([], dtype=int)}, columns))
    assert frame.shape == (0, 2)
    assert list(frame.columns) == ["x", "text"]


@pytest.mark.parametrize(
    ("index", "columns", "error", "message"),
    [
        ({"id": np.arange(2)}, {"x": np.arange(3)}, ValueError, "one length"),
        ({"id": np.arange(2)}, {"x": np.ones((2, 2))}, ValueError, "one length"),
        ({"id": np.array(["a"])}, {"x": np.arange(1)}, TypeError, "index level 'id'"),
        ({"id": np.arange(1)}, {"x": np.array(["2021-01-01"], dtype="M8[s]")}, TypeError, "column 'x'"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(tmp_path, index, columns, error, message):
    with pytest.raises(error, match=message):
        write(tmp_path / "a.h5", index, columns)
