"""Every layout of the table of layers reads as pandas reads it; every other one is named and refused."""

import os
import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.errors import SourceError
from warehouse.frames import MetaFrame, parse_csv, read_frame

SHARED = Path(os.environ.get("WAREHOUSE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
LEVELS = ["model_id", "conv_depth", "conv_depth_norm"]
TEXT_DTYPES = ["str", "object", "string"]


def layers(text: Any = "str", n_levels: int = 3) -> pd.DataFrame:
    """Four layers of two models, with every kind of column that the known datasets have."""
    tuples = [(0, 0, 0.0, 0), (0, 1, 1.0, 1), (7, 0, np.nan, 0), (7, 0, np.inf, 1)]
    index = pd.MultiIndex.from_tuples([row[:n_levels] for row in tuples], names=[*LEVELS, "layer_id"][:n_levels])
    frame = pd.DataFrame(
        {
            "filter_ids": ["0:4", "5:7", "8:8", "9:9"],
            "Task": ["Größe", None, "", "nan?"],
            "depth": [1, 2, 3, 4],
            "op_set": np.array([11, 11, 9, 9], "int8"),
            "Conv": [1.5, np.nan, 2, 3],
            "Clean Accuracy": np.array([0.5, 0.25, 0, 1], "float32"),
            "Pretraining-Dataset": [True, False, True, True],
            "(3, 3) filters": [1.0, 2.0, 3.0, 4.0],
        },
        index=index,
    )
    return frame.astype({"filter_ids": text, "Task": text})


def write(path: Path, frame: pd.DataFrame | pd.Series, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas and PyTables warn of names and of objects they pickle
        frame.to_hdf(path, key="meta", index=False, **options)  # no search index beside a table: it is slow
    return path


def read(path: Path) -> MetaFrame:
    with h5py.File(path) as file:
        return read_frame(file)


def reference(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = pd.read_hdf(path, "meta")
    assert isinstance(frame, pd.DataFrame)
    return frame


def assert_same_values(values: np.ndarray, expected: pd.Series | pd.Index) -> None:
    assert values.shape == expected.shape
    if values.dtype != object:
        np.testing.assert_array_equal(values, expected.to_numpy())
        return
    for value, wanted in zip(values, expected, strict=True):
        if isinstance(wanted, list | np.ndarray):
            assert value == list(wanted)
        elif pd.isna(wanted):
            assert pd.isna(value)
        else:
            assert type(value) is type(wanted)
            assert value == wanted


def assert_same(meta: MetaFrame, expected: pd.DataFrame) -> None:
    assert meta.n_rows == len(expected)
    assert set(meta.index) == set(expected.index.names)
    for level in expected.index.names:
        assert_same_values(meta.index[level], expected.index.get_level_values(level))
    assert set(meta.columns) == set(expected.columns)
    for column in expected.columns:
        assert_same_values(meta.columns[column], expected[column])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


@pytest.mark.parametrize("name", ["zoo.h5", "lens.h5", "onnx.h5"])
def test_real_datasets_read_as_pandas_reads_them(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    meta, expected = read(SHARED / name), reference(SHARED / name)
    assert_same(meta, expected)
    assert list(meta.columns) == list(expected.columns)


@pytest.mark.parametrize("text", TEXT_DTYPES)
@pytest.mark.parametrize(("n_levels", "complevel"), [(3, None), (4, 5)])
def test_fixed_format_reads_as_pandas_reads_it(path: Path, text: str, n_levels: int, complevel: int | None) -> None:
    write(path, layers(text, n_levels), format="fixed", complevel=complevel)
    meta = read(path)
    assert_same(meta, reference(path))
    assert list(meta.columns) == list(layers())
    assert meta.columns["Pretraining-Dataset"].dtype == bool


@pytest.mark.parametrize(
    ("text", "options"),
    [
        *((text, {}) for text in TEXT_DTYPES),
        ("str", {"data_columns": ["Task", "depth"], "min_itemsize": {"Task": 40}}),
        ("object", {"data_columns": True}),
        ("str", {"nan_rep": "absent"}),
        ("str", {"complevel": 5, "complib": "zlib"}),
    ],
    ids=str,
)
def test_table_format_reads_as_pandas_reads_it(path: Path, text: str, options: dict[str, Any]) -> None:
    write(path, layers(text), format="table", **options)
    meta = read(path)
    assert_same(meta, reference(path))
    assert meta.columns["Pretraining-Dataset"].dtype == bool


def test_table_format_of_older_pandas_spells_missing_text_nan(path: Path) -> None:
    write(path, layers(), format="table")
    with h5py.File(path, "a") as file:
        del file["meta"].attrs["data_col_nan_rep"]
        for name in [name for name in file["meta/table"].attrs if name.endswith("_nan_rep")]:
            del file["meta/table"].attrs[name]
    assert read(path).columns["Task"].tolist() == ["Größe", None, "", "nan?"]


def test_table_format_keeps_a_text_that_only_looks_missing(path: Path) -> None:
    write(path, layers().assign(Task=["nan", None, "x", "y"]), format="table")
    assert read(path).columns["Task"].tolist() == ["nan", None, "x", "y"]


def test_categories_in_table_format_become_their_values(path: Path) -> None:
    frame = layers("object")
    write(path, frame.astype({"Task": "category", "op_set": "category"}), format="table")
    meta = read(path)
    assert meta.columns["Task"].tolist() == ["Größe", None, "", "nan?"]
    assert meta.columns["op_set"].tolist() == [11, 11, 9, 9]


@pytest.mark.parametrize("table_format", ["fixed", "table"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_become_iso_text(path: Path, table_format: Any, unit: str) -> None:
    moments = np.array(["2022-03-28T10:00", "NaT"] * 2, f"M8[{unit}]")
    write(path, layers().assign(added=moments), format=table_format)
    texts = read(path).columns["added"].tolist()
    assert texts[1] is None
    assert np.datetime64(texts[0]) == moments[0]


def test_durations_are_refused(path: Path) -> None:
    write(path, layers().assign(took=pd.to_timedelta([1, 2, 3, 4], unit="s")))
    with pytest.raises(SourceError, match=r"block\d_values.*timedelta64"):
        read(path)


@pytest.mark.parametrize("table_format", ["fixed", "table"])
@pytest.mark.parametrize("n_levels", [3, 4])
def test_unnamed_levels_are_named_by_position(path: Path, table_format: Any, n_levels: int) -> None:
    frame = layers(n_levels=n_levels)
    write(path, frame.rename_axis([None] * n_levels), format=table_format)
    assert_same(read(path), frame)


@pytest.mark.parametrize("table_format", ["fixed", "table"])
def test_levels_stored_as_columns_are_moved_to_the_index(path: Path, table_format: Any) -> None:
    frame = layers(n_levels=4)
    write(path, frame.reset_index(), format=table_format)
    assert_same(read(path), frame)


def test_a_plain_index_of_model_ids_is_completed_from_the_columns(path: Path) -> None:
    frame = layers()
    write(path, frame.reset_index().set_index("model_id"))
    assert_same(read(path), frame)


@pytest.mark.parametrize("table_format", ["fixed", "table"])
def test_missing_levels_are_nan(path: Path, table_format: Any) -> None:
    frame = layers()
    frame.index = pd.MultiIndex.from_arrays([[0, 0, 7, 7], [0, 1, 0, 0], [np.nan] * 4], names=LEVELS)
    write(path, frame, format=table_format)
    assert np.isnan(read(path).index["conv_depth_norm"].astype(float)).all()


def test_a_missing_whole_number_level_is_nan(path: Path) -> None:
    write(path, layers())
    with h5py.File(path, "a") as file:
        file["meta/axis1_label1"][2] = -1
    np.testing.assert_array_equal(read(path).index["conv_depth"], [0, 1, np.nan, 0])


def test_lists_and_mixed_values_survive_in_object_columns(path: Path) -> None:
    mixed = [True, None, 1.5, "x"]
    frame = layers("object").assign(filter_ids=[[0, 1, 2], np.arange(3, 5), [5], [6]], Robust=mixed)
    write(path, frame)
    meta = read(path)
    assert meta.columns["filter_ids"].tolist() == [[0, 1, 2], [3, 4], [5], [6]]
    assert meta.columns["Robust"].tolist() == mixed


names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
cells = {
    "float": st.floats(width=64),
    "int": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "text": st.one_of(st.none(), names),
    "object": st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), names, st.lists(st.integers())),
}


@st.composite
def any_frame(draw: st.DrawFn) -> pd.DataFrame:
    n_rows = draw(st.integers(1, 6))
    frame = layers().iloc[[0] * n_rows].loc[:, ["filter_ids"]]
    ids = st.one_of(st.integers(0, 3), st.just(2**40))
    frame.index = pd.MultiIndex.from_arrays(
        [draw(st.lists(values, min_size=n_rows, max_size=n_rows)) for values in (ids, ids, cells["float"])],
        names=LEVELS,
    )
    for name in draw(st.sets(names.filter(lambda name: name not in {*LEVELS, "filter_ids", "layer_id"}), max_size=5)):
        kind = draw(st.sampled_from(sorted(cells)))
        values = draw(st.lists(cells[kind], min_size=n_rows, max_size=n_rows))
        frame[name] = pd.Series(values, frame.index, dtype={"text": "str"}.get(kind, kind))
    return frame


@given(any_frame())
@settings(max_examples=25, deadline=None)
def test_any_frame_in_fixed_format_comes_back(frame: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "dataset.h5", frame)
        assert_same(read(path), reference(path))


CSV = layers().reset_index().to_csv(index=False).encode()


@pytest.mark.parametrize(
    "stored",
    [
        np.frombuffer(CSV, "u1"),
        np.frombuffer(CSV, "i1"),
        np.frombuffer(CSV, "S1"),
        np.frombuffer(b"\xef\xbb\xbf" + CSV + b"\0\0", "u1"),
        np.bytes_(CSV),
        np.void(CSV),
        CSV.decode(),
        [CSV.decode()],
    ],
    ids=["uint8", "int8", "S1", "mark and padding", "bytes", "opaque", "variable", "array of one"],
)
def test_csv_text_is_read_however_it_is_stored(path: Path, stored: Any) -> None:
    with h5py.File(path, "w") as file:
        file["meta"] = stored
    meta = read(path)
    assert list(meta.index) == LEVELS
    assert meta.columns["filter_ids"].tolist() == ["0:4", "5:7", "8:8", "9:9"]
    assert meta.columns["Task"].tolist() == ["Größe", None, None, "nan?"]
    assert meta.columns["Pretraining-Dataset"].dtype == bool
    assert meta.columns["depth"].dtype == np.int64
    np.testing.assert_array_equal(meta.columns["Conv"], [1.5, np.nan, 2, 3])
    np.testing.assert_array_equal(meta.index["conv_depth_norm"], [0, 1, np.nan, np.inf])


def test_csv_keeps_text_that_is_not_wholly_numeric() -> None:
    columns = parse_csv(b'a,b,c,d\n1,True,"x,\n""y""",\n2:3,,1_000,\n')
    assert {name: values.tolist() for name, values in columns.items()} == {
        "a": ["1", "2:3"],
        "b": ["True", None],
        "c": ['x,\n"y"', "1_000"],
        "d": [None, None],
    }


@pytest.mark.parametrize("text", [b"", b"a,b\n1,2,3\n", b"\xff\xfe\x00"])
def test_text_that_is_no_csv_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError, match="CSV"):
        parse_csv(text)


def test_a_missing_table_of_layers_is_named(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["filters"] = np.zeros((1, 3, 3))
    with pytest.raises(SourceError, match=r"no /meta.*filters"):
        read(path)


def test_a_series_is_refused(path: Path) -> None:
    write(path, layers()["Task"])
    with pytest.raises(SourceError, match="'series'"):
        read(path)


@pytest.mark.parametrize("stored", [np.zeros((2, 2)), np.zeros(3, "u2"), np.zeros(2, [("a", "f4")])[["a"]]])
def test_an_array_of_numbers_is_refused(path: Path, stored: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["meta"] = stored
    with pytest.raises(SourceError, match="/meta"):
        read(path)


@pytest.mark.parametrize("table_format", ["fixed", "table"])
@pytest.mark.parametrize("name", ["model_id", "conv_depth", "filter_ids"])
def test_what_every_dataset_has_is_required(path: Path, table_format: Any, name: str) -> None:
    write(path, layers().reset_index().drop(columns=name), format=table_format)
    with pytest.raises(SourceError, match=rf"no {name}; its index levels are .*Task"):
        read(path)


@pytest.mark.parametrize("table_format", ["fixed", "table"])
def test_a_frame_without_rows_is_refused(path: Path, table_format: Any) -> None:
    write(path, layers().iloc[:0], format=table_format)
    with pytest.raises(SourceError):
        read(path)


def test_a_csv_text_without_rows_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["meta"] = np.frombuffer(CSV.splitlines()[0], "u1")
    with pytest.raises(SourceError, match="no rows"):
        read(path)


def test_columns_of_several_levels_are_refused(path: Path) -> None:
    frame = layers()
    frame.columns = pd.MultiIndex.from_product([["all"], frame.columns])
    write(path, frame)
    with pytest.raises(SourceError, match="several levels"):
        read(path)


def change(path: Path, name: str, values: Any) -> None:
    """Replace a dataset inside a file, keeping its attributes."""
    with h5py.File(path, "a") as file:
        kept = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(kept)


def test_blocks_stored_with_columns_first_are_read(path: Path) -> None:
    write(path, layers())
    with h5py.File(path, "a") as file:
        values = file["meta/block4_values"][()]
    change(path, "meta/block4_values", values.T)
    with h5py.File(path, "a") as file:
        file["meta/block4_values"].attrs["transposed"] = np.uint8(0)
    assert_same(read(path), layers())


@pytest.mark.parametrize(
    ("table_format", "place", "value", "message"),
    [
        ("fixed", "meta@nblocks", np.bytes_("many"), "'nblocks'"),
        ("fixed", "meta@axis1_nlevels", h5py.Empty("S1"), "'axis1_nlevels'"),
        ("fixed", "meta@pandas_type", np.bytes_("wide"), "'wide'"),
        ("fixed", "meta/axis1_level0@kind", np.bytes_("category"), "categorical"),
        ("fixed", "meta/axis1_level0@name", np.bytes_("conv_depth"), "number 2 is named 'conv_depth'"),
        ("table", "meta@levels", np.bytes_(pickle.dumps(["model_id", "other"], 0)), "'other'"),
        ("table", "meta/table@values_block_0_kind", np.bytes_("Conv"), "'values_block_0'"),
        ("table", "meta/table@values_block_0_meta", np.bytes_("category"), "categories"),
    ],
)
def test_attributes_that_mislead_are_named(path: Path, table_format: Any, place: str, value: Any, message: str) -> None:
    write(path, layers(), format=table_format)
    name, _, attribute = place.partition("@")
    with h5py.File(path, "a") as file:
        file[name].attrs[attribute] = value
    with pytest.raises(SourceError, match=message):
        read(path)


def test_more_unnamed_levels_than_are_known_are_refused(path: Path) -> None:
    frame = layers(n_levels=4).set_index("depth", append=True)
    write(path, frame.rename_axis([None] * 5))
    with pytest.raises(SourceError, match="number 5 is named None"):
        read(path)


def test_a_pickle_of_anything_but_columns_is_refused(path: Path) -> None:
    write(path, layers())
    with h5py.File(path, "a") as file:
        file["meta/block0_values"][0] = np.frombuffer(pickle.dumps(["text"]), "u1")
    with pytest.raises(SourceError, match="other than a column"):
        read(path)


def test_a_table_that_is_a_plain_array_is_refused(path: Path) -> None:
    write(path, layers(), format="table")
    change(path, "meta/table", np.zeros((4, 3)))
    with pytest.raises(SourceError, match="not a table"):
        read(path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("meta/block0_items", np.array([b"other"]), "disagree"),
        ("meta/block0_items", np.array([b"one", b"two"]), "shape"),
        ("meta/block0_items", np.array([b"Task"]), "twice"),
        ("meta/block0_items", np.array([b"\xff"]), "UTF-8"),
        ("meta/block2_values", np.zeros((3, 1), "i8"), "3 rows"),
        ("meta/block2_values", np.zeros((4, 2), "i8"), "shape"),
        ("meta/block2_values", np.zeros((4, 1), "c16"), "complex"),
        ("meta/axis1_label0", np.array([0, 0, 1, 2]), "codes"),
        ("meta/axis1_label0", np.array([0, 0, 1, -2]), "codes"),
        ("meta/axis1_label0", np.zeros(4), "codes"),
        ("meta/axis1_label0", np.zeros(3, int), "rows"),
        ("meta/block0_values", np.zeros(3, "u1"), "pickle"),
    ],
)
def test_parts_that_disagree_are_named(path: Path, name: str, values: np.ndarray, message: str) -> None:
    write(path, layers())
    change(path, name, values)
    with pytest.raises(SourceError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["axis0", "axis1_level1", "axis1_label2", "block0_items", "block1_values"])
def test_a_missing_part_is_named(path: Path, name: str) -> None:
    write(path, layers())
    with h5py.File(path, "a") as file:
        del file["meta"][name]
    with pytest.raises(SourceError, match=f"/meta/{name} is missing"):
        read(path)


class Planted:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize(
    ("table_format", "place"),
    [
        ("fixed", "meta/block0_values"),
        ("fixed", "meta@pandas_type"),
        ("fixed", "meta@axis1_variety"),
        ("fixed", "meta/axis1_level0@name"),
        ("fixed", "meta/axis0@kind"),
        ("table", "meta@levels"),
        ("table", "meta/table@values_block_0_kind"),
        ("table", "meta/table@conv_depth_dtype"),
        ("table", "meta@nan_rep"),
    ],
)
def test_a_planted_pickle_is_refused_and_not_run(path: Path, table_format: Any, place: str) -> None:
    trace = path.with_name("planted")
    write(path, layers(), format=table_format)
    name, _, attribute = place.partition("@")
    with h5py.File(path, "a") as file:
        if attribute:
            file[name].attrs[attribute] = np.bytes_(pickle.dumps(Planted(trace), 0))
        else:
            file[name][0] = np.frombuffer(pickle.dumps(Planted(trace)), "u1")
        if attribute == "nan_rep":
            del file["meta"].attrs["data_col_nan_rep"]
    with pytest.raises(SourceError, match="nothing was run"):
        read(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["meta", "meta/axis0", "meta/block0_values"])
@pytest.mark.parametrize("kind", ["soft", "external", "dangling"])
def test_links_are_refused(path: Path, name: str, kind: str) -> None:
    write(path, layers())
    other = write(path.with_name("other.h5"), layers())
    with h5py.File(path, "a") as file:
        file.move(name, "moved")
        links = {
            "soft": h5py.SoftLink("/moved"),
            "external": h5py.ExternalLink(other, name),
            "dangling": h5py.SoftLink("/nowhere"),
        }
        file[name] = links[kind]
    with pytest.raises(SourceError, match=f"/{name} is a soft or external link"):
        read(path)


def test_data_in_other_files_is_refused(path: Path) -> None:
    outside = path.with_name("outside.bin")
    outside.write_bytes(CSV)
    with h5py.File(path, "w") as file:
        file.create_dataset("meta", (len(CSV),), "u1", external=[(str(outside), 0, len(CSV))])
    with pytest.raises(SourceError, match="other files"):
        read(path)


def test_virtual_data_is_refused(path: Path) -> None:
    layout = h5py.VirtualLayout((len(CSV),), "u1")
    layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "meta", (len(CSV),))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("meta", layout)
    with pytest.raises(SourceError, match="other files"):
        read(path)


def test_a_table_of_absurd_size_is_refused_before_it_is_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("meta", (10**13,), "u1", chunks=(1024,))
    with pytest.raises(SourceError, match="larger than"):
        read(path)
