"""Bad input: one clear line that names what, where and what to do, status 1, and nothing created or changed."""

import contextlib
import errno
import lzma
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import warehouse
from tests.test_cli import Result, call_main, run
from tests.test_ingest import LAYERS, Layer, random_filters, write_dataset
from tests.test_maintenance import contents
from warehouse import lake
from warehouse.errors import LakeError
from warehouse.maintenance import vacuum

FILTERS = random_filters(600)
Make = Callable[[Path], object]


class Planted:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def text(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def changed(change: Callable[[h5py.File], object]) -> Make:
    """A sound dataset with a change."""

    def make(path: Path) -> None:
        write_dataset(path, LAYERS, FILTERS)
        with h5py.File(path, "a") as file:
            change(file)

    return make


def without(name: str) -> Make:
    return changed(lambda file: file.pop(name))


def with_filters(filters: np.ndarray) -> Make:
    return lambda path: write_dataset(path, LAYERS, filters)


def with_weight(filter_id: int, weight: float) -> Make:
    filters = FILTERS.copy()
    filters[filter_id, 2, 1] = weight
    return with_filters(filters)


def with_ids(*ids: Any) -> Make:
    layers: list[Layer] = [(7 + i, i, each) for i, each in enumerate(ids)]
    return lambda path: write_dataset(path, layers, FILTERS)


def with_column(name: str, *values: Any, **options: Any) -> Make:
    return lambda path: write_dataset(path, LAYERS, FILTERS, columns={name: np.array(values, object)}, **options)


def plant(path: Path) -> None:
    write_dataset(path, LAYERS, FILTERS, columns={"Task": np.array(["a", "a", "b"], object)})
    with h5py.File(path, "a") as file:
        for name in ("block0_values", "block1_values"):
            if name in file["meta"] and file["meta"][name].dtype == object:
                file["meta"][name][0] = np.frombuffer(pickle.dumps(Planted(path.with_name("planted")), 0), "u1")


def replace_meta(value: np.ndarray) -> Make:
    def change(file: h5py.File) -> None:
        del file["meta"]
        file["meta"] = value

    return changed(change)


CASES: dict[str, tuple[Make, str]] = {
    "missing file": (lambda _: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "a folder; expected a dataset file"),
    "empty file": (text(b""), "not an HDF5 file; expected dataset.h5"),
    "not HDF5": (text(b"PK\3\4" * 1000), "not an HDF5 file; expected dataset.h5 or dataset.h5.xz"),
    "cut short": (
        lambda path: path.write_bytes(write_dataset(path, LAYERS, FILTERS).read_bytes()[:9000]),
        "damaged|cut",
    ),
    "broken xz": (text(b"\xfd7zXZ\0" + bytes(100)), r"\.xz stream|download"),
    "no filters": (without("filters"), r"no /filters dataset; the file holds \['meta'\]"),
    "filters are a group": (
        changed(lambda f: (f.pop("filters"), f.create_group("filters"))),
        "/filters is not a dataset",
    ),
    "wrong shape": (with_filters(FILTERS.reshape(-1, 18)), r"/filters has shape \(300, 18\); expected \(N, 3, 3\)"),
    "whole numbers": (with_filters(FILTERS.astype("i4")), "/filters holds int32; expected float16, float32 or float64"),
    "no meta": (without("meta"), r"no /meta, the table of layers; the file holds \['filters'\]"),
    "meta is a series": (
        changed(lambda f: f["meta"].attrs.__setitem__("pandas_type", np.bytes_(b"series"))),
        "/meta is not a pandas DataFrame or a CSV text: pandas_type is 'series'",
    ),
    "meta is an empty group": (
        changed(lambda f: (f.pop("meta"), f.create_group("meta"))),
        "/meta is not a pandas DataFrame or a CSV text",
    ),
    "meta is numbers": (replace_meta(np.arange(5.0)), "/meta is an array of float64 .*neither a pandas DataFrame"),
    "meta is no CSV": (replace_meta(np.frombuffer(b"\xff\xfe\x00", "u1")), "/meta is no CSV text in UTF-8"),
    "CSV without ids": (replace_meta(np.frombuffer(b"model_id,conv_depth\n0,0\n", "u1")), "/meta has no filter_ids"),
    "planted pickle": (plant, "nothing was run"),
    "ids out of range": (with_ids("0:9", "10:600"), "/meta, row 1: filter_ids '10:600' is out of range.* 0:599"),
    "negative ids": (with_ids("-3:9"), "/meta, row 0: filter_ids '-3:9' is out of range"),
    "ids reversed": (with_ids("0:9", "30:20"), "/meta, row 1: filter_ids '30:20' runs backwards, expected start:end"),
    "ids overlap": (
        with_ids("100:199", "0:100"),
        r"layers in rows 1 \(model 8\) and 0 \(model 7\) both claim filters 100:100",
    ),
    "ids repeat": (with_ids("0:599", "0:599"), r"rows 0 \(model 7\) and 1 \(model 8\) both claim filters 0:599"),
    "ids malformed": (with_ids("0:9", "10-19"), "/meta, row 1: filter_ids is '10-19', expected 'start:end' or a list"),
    "ids missing": (with_ids("0:9", None), "/meta, row 1: filter_ids is None, expected 'start:end' or a list"),
    "ids with gaps": (with_ids("0:9", [10, 12]), "/meta, row 1: filter_ids lists ids with gaps or repeats"),
    "NaN weight": (
        with_weight(150, np.nan),
        "/filters: filter 150 of layer_id 1, model_id 0, has a NaN or infinite weight, .* use --allow-nonfinite",
    ),
    "infinite weight": (with_weight(599, -np.inf), "/filters: filter 599 of layer_id 2, model_id 1, has a NaN or inf"),
    "beyond float32": (with_weight(0, 1e300), "/filters: filter 0 of layer_id 0, model_id 0, has a NaN or infinite"),
    "one id, two models": (
        with_column("model", "vgg11", "vgg13", "alexnet"),
        "/meta, rows 0 and 1: model_id 0 has two values of 'model', 'vgg11' and 'vgg13'; give each model an id",
    ),
    "one id, two tasks": (
        with_column("Task", None, "Segmentation", "Segmentation"),
        "/meta, rows 0 and 1: model_id 0 has two values of 'Task', None and 'Segmentation'",
    ),
    "text for a number": (
        with_column("op_set", 9, "nine", 9),
        "/meta, row 1: 'op_set' is 'nine', expected a whole number",
    ),
}


def assert_one_line(result: Result, pattern: str) -> None:
    status, out, err = result
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert re.search(pattern, err), err


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


@pytest.mark.parametrize("case", CASES)
def test_an_unfit_dataset_is_one_clear_line_and_leaves_nothing(path: Path, case: str) -> None:
    make, pattern = CASES[case]
    make(path)
    before = set(path.parent.iterdir())
    assert_one_line(call_main("ingest", str(path), str(path.with_name("w"))), pattern)
    assert set(path.parent.iterdir()) == before


@pytest.mark.parametrize("case", ["not HDF5", "planted pickle", "ids overlap", "NaN weight", "one id, two models"])
def test_the_line_names_the_dataset_file(path: Path, case: str) -> None:
    CASES[case][0](path)
    assert str(path) in call_main("ingest", str(path), str(path.with_name("w"))).err


@pytest.mark.parametrize(("case", "command"), [("planted pickle", run), ("NaN weight", call_main)])
def test_replacing_by_an_unfit_dataset_keeps_the_old_warehouse(
    path: Path, case: str, command: Callable[..., Result]
) -> None:
    target = path.with_name("w")
    warehouse.ingest(write_dataset(path.with_name("old.h5"), LAYERS, FILTERS), target)
    before = contents(target)
    make, pattern = CASES[case]
    make(path)
    assert_one_line(command("ingest", str(path), str(target), "--replace"), pattern)
    assert contents(target) == before
    assert not path.with_name("planted").exists()


def test_the_planted_pickle_of_these_tests_would_do_harm(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Planted(tmp_path / "planted")))
    assert (tmp_path / "planted").exists()


def test_weights_that_are_not_finite_everywhere_are_refused_even_if_allowed(path: Path) -> None:
    with_filters(np.full((600, 3, 3), np.nan))(path)
    result = call_main("ingest", str(path), str(path.with_name("w")), "--allow-nonfinite")
    assert_one_line(result, "every layer has NaN or infinite weights")
    assert not path.with_name("w").exists()


@pytest.fixture
def dataset(path: Path) -> Path:
    return write_dataset(path, LAYERS, FILTERS)


def test_a_target_that_exists_is_refused_and_untouched(dataset: Path, tmp_path: Path) -> None:
    warehouse.ingest(dataset, tmp_path / "w")
    before = contents(tmp_path / "w")
    result = call_main("ingest", str(dataset), str(tmp_path / "w"))
    assert_one_line(
        result,
        f"{tmp_path}/w is a warehouse already; use --replace to make it anew, --append to add to it, or name another",
    )
    assert contents(tmp_path / "w") == before


@pytest.mark.parametrize("replace", [[], ["--replace"]], ids=["plain", "replace"])
def test_a_target_that_is_a_file_is_refused_and_untouched(dataset: Path, tmp_path: Path, replace: list[str]) -> None:
    (tmp_path / "w").write_text("precious")
    result = call_main("ingest", str(dataset), str(tmp_path / "w"), *replace)
    assert_one_line(result, f"{tmp_path}/w is a file; name a folder for the warehouse")
    assert (tmp_path / "w").read_text() == "precious"


@pytest.mark.parametrize("replace", [[], ["--replace"]], ids=["plain", "replace"])
def test_a_folder_with_other_files_is_refused_and_untouched(dataset: Path, tmp_path: Path, replace: list[str]) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.tex").write_text("precious")
    result = call_main("ingest", str(dataset), str(tmp_path / "w"), *replace)
    assert_one_line(result, f"{tmp_path}/w holds other files and is no warehouse; name a new folder")
    assert [file.name for file in (tmp_path / "w").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("folder", ["dataset.h5/w", "x" * 300], ids=["below a file", "too long a name"])
def test_a_folder_that_cannot_be_made_is_named(dataset: Path, tmp_path: Path, folder: str) -> None:
    result = call_main("ingest", str(dataset), str(tmp_path / folder))
    assert_one_line(result, f"cannot write {tmp_path / folder}.*: (Not a directory|File name too long)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    result = call_main("ingest", str(dataset), str(tmp_path / "locked" / "w"))
    assert_one_line(result, f"cannot write {tmp_path}/locked/w: Permission denied")


def test_a_folder_that_duckdb_cannot_search_is_refused_before_filters_are_read(dataset: Path, tmp_path: Path) -> None:
    calls = []
    with pytest.raises(warehouse.WarehouseError, match="comma"):
        warehouse.ingest(dataset, tmp_path / "a,b", progress=lambda *call: calls.append(call))
    assert calls == []
    assert not (tmp_path / "a,b").exists()


def test_a_target_that_exists_is_refused_before_the_source_is_unpacked(dataset: Path, tmp_path: Path) -> None:
    warehouse.ingest(dataset, tmp_path / "w")
    packed = tmp_path / "dataset.h5.xz"
    packed.write_bytes(lzma.compress(dataset.read_bytes(), preset=0))
    calls = []
    with pytest.raises(LakeError, match="is a warehouse already"):
        warehouse.ingest(packed, tmp_path / "w", progress=lambda *call: calls.append(call))
    assert calls == []


@pytest.mark.parametrize(
    ("step", "after", "exists"), [("write", 1, False), ("write", 10, True), ("fsync", 1, True), ("fsync", 8, False)]
)
def test_a_full_disk_is_one_clear_line_and_changes_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int, exists: bool
) -> None:
    target = tmp_path / "w"
    if exists:
        warehouse.ingest(dataset, target)
    before = contents(target)
    owner = os if step == "fsync" else lake._HashingFile
    original, calls = getattr(owner, step), []

    def fill_up(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    monkeypatch.setattr(owner, step, fill_up)
    result = call_main("ingest", str(dataset), str(target), "--replace", "--threads", "1")
    assert_one_line(result, f"cannot write {target}/lake/.*: the disk is full; make room and try again")
    monkeypatch.undo()
    assert_all_but_finished_work_is_as_before(target, result[2], before)


def assert_all_but_finished_work_is_as_before(target: Path, message: str, before: dict[str, Any]) -> None:
    """Nothing is left of a failed ingest, or what its next run can use and ``vacuum`` removes, and it says so."""
    if "the same command goes on from there" in message:
        assert vacuum(target)[0] > 1
    elif not before:
        assert not target.exists()
    assert contents(target) == before


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "warehouse-test", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
@pytest.mark.parametrize("kilobytes", [50, 500, 1500, 4000])
def test_a_disk_that_is_really_full_is_one_clear_line_and_leaves_nothing(
    sample: Path, tmp_path: Path, kilobytes: int
) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        result = call_main("ingest", str(sample), str(disk / "w"))
        assert_one_line(result, f"error: cannot (write|build) {disk}/w.*(the disk is full|No space left on device)")
        assert_all_but_finished_work_is_as_before(disk / "w", result[2], {})


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_a_disk_that_fills_up_during_a_replace_keeps_the_old_warehouse(sample: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 10_000) as disk:
        warehouse.ingest(sample, disk / "w")
        before = contents(disk / "w")
        status, out, err = call_main("ingest", str(sample), str(disk / "w"), "--replace")
        assert (status, out) == (1, "")
        assert_all_but_finished_work_is_as_before(disk / "w", err, before)


@pytest.mark.parametrize("format_", ["table", "csv"])
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "Parser Error: syntax error at or near"),
        ("from layer", "Catalog Error: Table with name layer does not exist"),
        ("select tsak from models", 'Binder Error: Referenced column "tsak" not found'),
        ("select error('at ' || n_filters) from layers", "at "),
        ("select ('x' || task)::int from models", "Conversion Error: Could not convert string 'x"),
        ("from drift(no_such_axis)", "no_such_axis"),
        ("drop table layers", "read-only"),
        ("select jensen_shannon([1.0], [1.0, 2.0])", "p has 1 bins and q has 2"),
    ],
)
def test_an_error_in_sql_is_the_message_of_duckdb(sample_warehouse: Path, sql: str, message: str, format_: str) -> None:
    status, out, err = call_main("query", str(sample_warehouse), sql, "--format", format_)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert 'File "' not in err
