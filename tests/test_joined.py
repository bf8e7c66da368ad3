"""Several files as one source: their filters and tables follow one another, and any process can read them."""

from __future__ import annotations

import hashlib
import lzma
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import warehouse
from tests.extraction_models import conv_model, save_keras_2, save_torch, saved, weights
from tests.test_ingest import random_filters, write_dataset
from warehouse import changes, codec
from warehouse.cli import app
from warehouse.connection import connect
from warehouse.errors import CatalogError, LakeError, SourceError
from warehouse.joined import (
    Bad,
    Extracted,
    JoinedSource,
    Opened,
    Part,
    extracted_model,
    joined_source,
    joined_tables,
    kind_of,
    kind_of_all,
    open_all,
)
from warehouse.maintenance import vacuum
from warehouse.source import Source, SourceFile, close_reopened, open_source

TABLES = ("models", "layers", "model_operators", "model_kernels", "model_datasets")
COUNTS = (7, 1, 20, 5)


def part_of(path: Path) -> Part:
    with open_source(path) as source:
        return Part.of(source)


def dataset(path: Path, n: int = 10, seed: int = 0, **columns: np.ndarray) -> Path:
    """A dataset of one layer."""
    filters = random_filters(n + 1, seed=seed)[1:]
    return write_dataset(path, [(0, 0, f"0:{n - 1}")], filters, columns=columns)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Datasets of `COUNTS` filters."""
    folder = tmp_path_factory.mktemp("files")
    return [dataset(folder / f"{i}.h5", n, seed=i) for i, n in enumerate(COUNTS)]


@pytest.fixture(scope="module")
def stored(files: list[Path]) -> np.ndarray:
    """All their filters, ``(n, 9) float32``, as h5py reads them."""
    found = []
    for path in files:
        with h5py.File(path) as file:
            found.append(file["filters"][()].reshape(-1, 9))
    return np.concatenate(found).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model file of each format."""
    folder = tmp_path_factory.mktemp("models")
    safetensors, keras, torch = folder / "a.safetensors", folder / "k.h5", folder / "t.pt"
    save_file({"conv.weight": weights(4, 2, 3, 3)}, safetensors)
    save_keras_2(keras, {"conv": {"kernel:0": weights(3, 3, 2, 5)}})
    save_torch(torch, {"conv.weight": weights(6, 1, 3, 3)})
    return [safetensors, saved(conv_model(weights(2, 3, 3, 3)), folder / "o.onnx"), torch, keras]


def read_elsewhere(content: bytes, queue: multiprocessing.Queue[bytes]) -> None:
    for source in pickle.loads(content):
        queue.put(source.read(0, source.n_filters).tobytes())


def test_filters_are_read_across_files(files: list[Path], stored: np.ndarray) -> None:
    source = JoinedSource([part_of(path) for path in files])
    assert (source.n_filters, source.dtype) == (sum(COUNTS), np.float64)
    memory = np.empty((sum(COUNTS), 9), np.float32)
    for start in range(len(stored) + 1):
        for stop in range(start, len(stored) + 1):
            assert np.array_equal(source.read(start, stop, out=memory[: stop - start]), stored[start:stop])
    with pytest.raises(SourceError, match=r"0\.h5 and 3 more: filters 30 to 34 were asked for, the files hold 33"):
        source.read(30, 34)


def test_a_filter_is_known_to_be_of_its_file(files: list[Path]) -> None:
    source = JoinedSource([part_of(path) for path in files])
    expected = [path for path, n in zip(files, COUNTS, strict=True) for _ in range(n)]
    assert [source.path_of(i) for i in range(sum(COUNTS))] == expected


def test_sources_are_read_in_a_process_that_they_were_sent_to(files: list[Path], stored: np.ndarray) -> None:
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    parts = [part_of(path) for path in files]
    process = spawn.Process(
        target=read_elsewhere, args=(pickle.dumps([joined_source(parts[:1]), joined_source(parts)]), queue)
    )
    process.start()
    for n in (COUNTS[0], sum(COUNTS)):
        assert queue.get(timeout=30) == stored[:n].tobytes()
    process.join()


def test_a_process_opens_a_file_once_and_closes_it_with_its_last_use(files: list[Path]) -> None:
    with open_source(files[0]) as source:
        content = pickle.dumps(source)
    one, other = pickle.loads(content), pickle.loads(content)
    assert one is other
    one.close()
    assert other.read(0, 7).shape == (7, 9), "it is closed for all by one"


def test_hundreds_of_files_take_few_handles(tmp_path: Path) -> None:
    first = dataset(tmp_path / "0.h5")
    parts = []
    for i in range(300):
        path = shutil.copyfile(first, tmp_path / f"{i}.h5") if i else first
        parts.append(Part(SourceFile.of(path, path), path, 10, "float64", {}))
    before = len(list(Path("/dev/fd").iterdir()))
    source = JoinedSource(parts)
    found = source.read(0, 3000)
    assert np.array_equal(found, np.tile(found[:10], (300, 1)))
    # of a file that is not chunked HDF5 has one handle, and the reader past it another
    assert len(list(Path("/dev/fd").iterdir())) - before <= 2 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: os.utime(path, (0, 0)), "changed while it was read"),
        (lambda path: os.truncate(path, 100), "changed while it was read"),
    ],
    ids=["gone", "another time", "cut off"],
)
def test_a_file_that_is_no_longer_what_it_was_is_refused(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    parts = [part_of(dataset(tmp_path / f"{name}.h5", seed=i)) for i, name in enumerate("ab")]
    change(parts[1].path)
    with pytest.raises(SourceError, match=rf"b\.h5: {message}"):
        JoinedSource(parts).read(0, 20)


def test_what_a_packed_file_unpacked_to_is_read_while_it_is_open(tmp_path: Path, files: list[Path]) -> None:
    packed = tmp_path / "packed.h5.xz"
    packed.write_bytes(lzma.compress(files[2].read_bytes()))
    with open_all([files[0], packed], tmp_path) as opened:
        content = pickle.dumps(opened.source)
        assert pickle.loads(content).read(0, 27).shape == (27, 9)
    with pytest.raises(SourceError, match=r"packed\.h5\.xz: what it was unpacked to.*cannot be seen.*xz -d"):
        pickle.loads(content).read(0, 27)


def test_the_fingerprint_of_one_file_is_its_own_and_of_several_tells_any_change(
    files: list[Path], tmp_path: Path
) -> None:
    with open_source(files[0]) as source:
        assert JoinedSource([part_of(files[0])]).fingerprint() == source.fingerprint()
    copies = [Path(shutil.copy2(path, tmp_path)) for path in files]
    whole = JoinedSource([part_of(path) for path in copies]).fingerprint()
    assert whole == JoinedSource([part_of(path) for path in files]).fingerprint()
    assert (whole["name"], whole["size"]) == ("0.h5 and 3 more", sum(path.stat().st_size for path in files))
    assert JoinedSource([part_of(path) for path in reversed(copies)]).fingerprint() != whole
    close_reopened()
    with h5py.File(copies[3], "r+") as file:
        file["filters"][4, 0, 0] += 1
    changed = JoinedSource([part_of(path) for path in copies]).fingerprint()
    assert changed["sha256_samples"] != whole["sha256_samples"]


def test_tables_are_those_of_one_file_to_which_the_others_were_appended(
    sample: Path, lens_sample: Path, sample_warehouse: Path, tmp_path: Path
) -> None:
    target = shutil.copytree(sample_warehouse, tmp_path / "cnn.warehouse")
    varied = write_dataset(
        tmp_path / "varied.h5",
        [(5, 0, "0:9"), (5, 1, "10:19"), (3, 0, "20:24")],
        random_filters(25, seed=9),
        columns={"Colour": np.array(["red", "blue", "red"], object), "Task": np.array(["a", "a", "b"], object)},
    )
    coloured = dataset(tmp_path / "coloured.h5", Colour=np.array(["green"], object))
    paths = [lens_sample, varied, coloured]
    for path in paths:
        changes.append(path, target)
    tables = joined_tables([part_of(path) for path in (sample, *paths)])
    with connect(target) as con:
        for name in TABLES:
            expected = con.sql(f"from {name} order by all").to_arrow_table()
            found = getattr(tables, name)
            con.register("found", found.select(expected.column_names))
            assert sorted(found.column_names) == sorted(expected.column_names), name
            assert con.sql("from found order by all").to_arrow_table().to_pylist() == expected.to_pylist(), name


def test_a_warehouse_of_several_files_tells_of_each_what_one_of_it_alone_does(tmp_path: Path) -> None:
    filters = random_filters(30, seed=3)
    filters[4, 0, 0] = np.nan
    paths = [
        # unclaimed filters at the end of one file and at the beginning of the next
        write_dataset(tmp_path / "a.h5", [(0, 0, "2:19")], filters, dtype="<f4"),
        write_dataset(tmp_path / "b.h5", [(0, 0, "5:24"), (0, 1, "25:29")], random_filters(30, seed=4)),
        dataset(tmp_path / "c.h5"),
    ]
    query = "select * exclude (ingested_at, n_outside) from sources order by name"
    expected = []
    for path in paths:
        alone = warehouse.ingest(path, tmp_path / f"{path.stem}.warehouse", allow_nonfinite=True)
        with connect(alone.path) as con:
            expected += con.sql(query).fetchall()
    joined = warehouse.ingest(paths, tmp_path / "joined.warehouse", allow_nonfinite=True)
    with connect(joined.path) as con:
        assert con.sql(query).fetchall() == expected
        assert con.sql("select name, n_unclaimed, n_nonfinite from sources order by name").fetchall() == [
            ("a.h5", 12, 1),
            ("b.h5", 5, 0),
            ("c.h5", 0, 0),
        ]
    assert joined.unclaimed_filters == 17
    assert warehouse.verify(joined.path).is_sound


def test_a_file_of_several_is_not_appended_again(tmp_path: Path) -> None:
    paths = [dataset(tmp_path / f"{i}.h5", seed=i) for i in range(3)]
    target = warehouse.ingest(paths, tmp_path / "w").path
    for path in paths:
        with pytest.raises(LakeError, match=rf"holds {path.name} already, as {path.name}"):
            changes.append(path, target)


def test_a_name_that_is_not_utf_8_has_question_marks_in_tables(tmp_path: Path, models: list[Path]) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.h5")
    try:
        dataset(tmp_path / "odd.h5").rename(odd)
    except OSError:
        pytest.skip("the file system takes no such name")
    even = dataset(tmp_path / "even.h5", seed=1)
    first, second = tmp_path / "first.warehouse", tmp_path / "second.warehouse"
    warehouse.ingest([odd, even], first)
    warehouse.ingest(even, second)
    changes.append(odd, second)
    model = Path(shutil.copyfile(models[0], tmp_path / os.fsdecode(b"model\xff.safetensors")))
    changes.add(second, [warehouse.extract(model)])
    with connect(first) as con:
        assert con.sql("select name from sources").fetchall() == [("odd?.h5",), ("even.h5",)]
    with connect(second) as con:
        found = con.sql("select source from models order by model_id").fetchall()
    assert found == [("even.h5",), ("odd?.h5",), ("model?.safetensors",)]
    assert warehouse.verify(second).is_sound
    with pytest.raises(CatalogError, match="not UTF-8; rename the folder"):
        warehouse.ingest(even, tmp_path / os.fsdecode(b"w\xff"))


def test_info_tells_of_the_first_files_and_how_many_more_there_are(tmp_path: Path) -> None:
    paths = [dataset(tmp_path / f"{i}.h5", seed=i) for i in range(12)]
    target = warehouse.ingest(paths, tmp_path / "w").path
    told = CliRunner().invoke(app, ["info", str(target)]).stdout
    assert "name: 9.h5" in told
    assert "name: 10.h5" not in told
    assert "And 2 more: from sources" in told


def test_one_dataset_keeps_its_ids(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "own.h5", [(4, 0, "0:4"), (9, 0, "5:9")], random_filters(10))
    tables = joined_tables([part_of(path)])
    assert tables.models["model_id"].to_pylist() == tables.models["source_model_id"].to_pylist() == [4, 9]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1], [0.5], [1.0, 0.5]),
        ([np.nan], [2], [None, 2]),
        ([np.nan], ["text"], [None, "text"]),
        ([True], [np.nan], [True, None]),
        (None, ["text"], [None, "text"]),
        ([3], None, [3, None]),
    ],
)
def test_columns_take_the_type_that_holds_both(
    one: list | None, other: list | None, expected: list, tmp_path: Path
) -> None:
    parts = []
    for name, values in (("one", one), ("other", other)):
        columns = {} if values is None else {"Extra": np.array(values, object)}
        parts.append(part_of(dataset(tmp_path / f"{name}.h5", **columns)))
    assert joined_tables(parts).models["extra"].to_pylist() == expected


@pytest.mark.parametrize(("one", "other"), [(1, "text"), (True, 2), ("text", True)])
def test_columns_that_no_type_holds_are_refused_with_both_files(one: object, other: object, tmp_path: Path) -> None:
    values = {"one": one, "same": one, "other": other}
    paths = [dataset(tmp_path / f"{name}.h5", Extra=np.array([value], object)) for name, value in values.items()]
    with pytest.raises(SourceError, match=r"'extra' .* in \S*one\.h5 and .* in \S*other\.h5; rename"):
        joined_tables([part_of(path) for path in paths])


def test_models_become_parts_with_their_files_as_origin(models: list[Path], tmp_path: Path) -> None:
    labels = {models[1]: {"task": "Classification", "training_dataset": "A, B"}}
    stages: list[tuple[str, int, int]] = []
    with open_all(models, tmp_path, labels=labels, progress=lambda *told: stages.append(told)) as opened:
        tables, source = opened.tables, opened.source
        found = source.read(0, source.n_filters)
    expected = [warehouse.extract(path) for path in models]
    filters = [layer.reshape(-1, 9) for model in expected for _, layer in model.weights()]
    assert np.array_equal(found, np.concatenate(filters).astype(np.float32))
    assert tables.models["model_id"].to_pylist() == [0, 1, 2, 3]
    assert tables.models["source"].to_pylist() == [path.name for path in models]
    checksums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in models]
    assert tables.models["source_sha256"].to_pylist() == checksums
    assert tables.models["task"].to_pylist() == [None, "Classification", None, None]
    assert tables.model_datasets.to_pylist() == [
        {"model_id": 1, "role": "training", "dataset": name} for name in ("A", "B")
    ]
    ends = np.cumsum([model.n_filters for model in expected])
    assert tables.layers["first_filter_id"].to_pylist() == [0, *ends[:-1]]
    assert [each.format for each in opened.extracted] == ["safetensors", "onnx", "torch", "keras"]
    assert sorted(stages) == [("extracting", i, 4) for i in range(1, 5)]


def test_tables_of_models_are_those_that_adding_them_gives(
    models: list[Path], sample_warehouse: Path, tmp_path: Path
) -> None:
    target = shutil.copytree(sample_warehouse, tmp_path / "cnn.warehouse")
    changes.add(target, [warehouse.extract(path) for path in models])
    with open_all(models, tmp_path) as opened, connect(target) as con:
        state = changes.read_state(con)
        own = opened.tables.models.column_names
        query = f"select {', '.join(own)} from models where model_id >= 12 order by model_id"
        for found, row in zip(opened.tables.models.to_pylist(), con.sql(query).fetchall(), strict=True):
            expected = dict(zip(own, row, strict=True))
            assert found == expected | {"model_id": expected["model_id"] - 12, "source_model_id": 0}
        continued = joined_tables(
            [each.part for each in opened.extracted],
            start=state.start,
            of_models=state.model_columns,
            of_layers=state.layer_columns,
        )
    assert continued.models["model_id"].to_pylist() == list(range(state.start.model_id, state.start.model_id + 4))
    assert continued.layers["first_filter_id"].to_pylist()[0] == state.start.filter_id


def test_an_extracted_model_travels_as_plain_values(models: list[Path], tmp_path: Path) -> None:
    for path in (*models, tmp_path / "none.onnx"):
        result = extracted_model(path, {}, lambda _: None, folder=tmp_path, skip_bad=True)
        assert isinstance(result, Bad if path.parent == tmp_path else Extracted)
        assert codec.decode(Extracted | Bad, codec.encode(result)) == result


def test_the_fingerprint_of_models_does_not_depend_on_where_they_were_extracted_to(
    models: list[Path], tmp_path: Path
) -> None:
    def fingerprint() -> dict[str, str | int]:
        with open_all(models, tmp_path) as opened:
            return opened.source.fingerprint()

    assert fingerprint() == fingerprint()


def test_bad_files_are_named_or_left_out(files: list[Path], models: list[Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes(files[0].read_bytes()[:3000])
    no_meta = shutil.copy(files[1], tmp_path / "no_meta.h5")
    with h5py.File(no_meta, "r+") as file:
        del file["meta"]
    no_convolution = tmp_path / "dense.safetensors"
    save_file({"dense.weight": weights(4, 2)}, no_convolution)
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for good, bad in ((files[:2], [cut, no_meta, tmp_path / "none.h5", tmp_path]), (models, [no_convolution, empty])):
        for path in bad:
            with pytest.raises(SourceError, match=f"^{path}: "), open_all([*good, path], tmp_path):
                pass
        with open_all([*bad, *good], tmp_path, skip_bad=True) as opened:
            assert [each.path for each in opened.left_out] == bad
            assert all(each.reason.startswith(f"{each.path}: ") for each in opened.left_out)
            assert opened.tables.models["source"].to_pylist() == [path.name for path in good]
        with (
            pytest.raises(SourceError, match=r"none of \d files can be read; "),
            open_all(bad, tmp_path, skip_bad=True),
        ):
            pass


WITHOUT = "import sys; sys.modules[sys.argv.pop(1)] = None; from warehouse.cli import main; main()"


@pytest.mark.parametrize(("suffix", "package"), [(".onnx", "onnx"), (".safetensors", "safetensors")])
def test_no_file_is_blamed_for_a_package_that_is_missing(
    models: list[Path], tmp_path: Path, suffix: str, package: str
) -> None:
    sound = next(path for path in models if path.suffix == suffix)
    other = next(path for path in models if path.suffix not in (".onnx", ".safetensors"))
    command = [sys.executable, "-c", WITHOUT, package, "ingest", str(other), str(sound), str(tmp_path / "w")]
    done = subprocess.run([*command, "--skip-bad"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f" needs the package {package}; get it with: pip install 'cnn-filter-warehouse[models]'" in done.stderr
    assert "damaged" not in done.stderr
    assert not (tmp_path / "w").exists()


def test_no_file_is_blamed_for_a_folder_that_cannot_be_made(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LakeError, match=rf"cannot write {tmp_path / 'file'}"),
        open_all(models, tmp_path / "file" / "folder", skip_bad=True),
    ):
        pass


def test_no_file_is_blamed_for_a_folder_that_cannot_be_written(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as it may be for another machine
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with (
        pytest.raises(SourceError, match=rf"{tmp_path / 'absent'}"),
        open_all(models, tmp_path / "absent", skip_bad=True),
    ):
        pass


def test_the_same_file_twice_is_refused(files: list[Path], models: list[Path], tmp_path: Path) -> None:
    for paths in (files, models):
        copy = shutil.copy(paths[0], tmp_path / f"copy{paths[0].suffix}")
        message = rf"{copy} is the same as {paths[0]}; name it once"
        with pytest.raises(SourceError, match=message), open_all([*paths, copy], tmp_path):
            pass
        with open_all([*paths, copy], tmp_path, skip_bad=True) as opened:
            assert [each.reason for each in opened.left_out] == [message]
            assert opened.tables.models["source"].to_pylist() == [path.name for path in paths]


def test_a_file_is_a_dataset_or_a_model_by_its_contents(files: list[Path], models: list[Path], tmp_path: Path) -> None:
    packed = tmp_path / "data.onnx"
    packed.write_bytes(lzma.compress(b"anything"))
    text = tmp_path / "text.h5"
    text.write_text("neither")
    renamed = [shutil.copy(path, tmp_path / f"{i}.dat") for i, path in enumerate(models)]
    assert {kind_of(path) for path in (*files, packed)} == {"dataset"}
    assert {kind_of(path) for path in (*models, *renamed)} == {"model"}
    assert {kind_of(path) for path in (text, tmp_path, tmp_path / "none")} == {None}
    with pytest.raises(SourceError, match=rf"{files[1]} is a dataset and {models[0]} a model; "):
        kind_of_all([models[0], text, files[1]])
    with pytest.raises(SourceError, match="at least one"):
        kind_of_all([])


def test_no_file_stays_open(files: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy2(path, tmp_path)) for path in files]
    with open_all(copies, tmp_path) as opened:
        opened.source.read(0, sum(COUNTS))
    for path in copies:
        with h5py.File(path, "r+"):
            pass


def test_one_dataset_is_its_own_source(files: list[Path], tmp_path: Path) -> None:
    with open_all(files[:1], tmp_path) as opened, open_source(files[0]) as expected:
        assert isinstance(opened, Opened)
        assert isinstance(opened.source, Source)
        assert opened.source.fingerprint() == expected.fingerprint()
        assert (opened.source.path, opened.source.n_filters) == (files[0], 7)


def test_a_folder_of_the_users_is_left_alone_whatever_its_name(files: list[Path], tmp_path: Path) -> None:
    theirs = tmp_path / "w" / "extracted" / "mine.h5"
    theirs.parent.mkdir(parents=True)
    shutil.copy(files[0], theirs)
    with pytest.raises(LakeError, match="holds other files and is no warehouse"):
        warehouse.ingest(theirs, tmp_path / "w")
    assert theirs.exists()


def test_what_a_killed_extraction_has_left_is_removed_by_vacuum_and_none_of_it_is_in_the_way(
    models: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "w"
    left = target / f"extracted-{32 * '0'}" / f"{32 * 'a'}.h5"
    left.parent.mkdir(parents=True)
    left.touch()
    assert vacuum(target) == (1, 0)
    left.parent.mkdir()
    left.touch()
    summary = warehouse.ingest(models, target)
    assert summary.models == len(models)
    assert warehouse.verify(target).leftovers == (left.relative_to(target).as_posix(),)
    assert vacuum(target) == (1, 0)
    assert not left.parent.exists()


def test_a_model_that_is_no_model_is_told_as_one(tmp_path: Path) -> None:
    pointer = tmp_path / "large.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SourceError, match="Git LFS pointer"):
        warehouse.ingest(pointer, tmp_path / "w")
