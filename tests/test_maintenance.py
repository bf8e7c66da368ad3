"""What happens around the commit: replacing, failing, being killed, being read meanwhile, and cleaning up."""

import fcntl
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import warehouse
from tests.test_cli import call_main
from tests.test_ingest import LAYERS, checksums, random_filters, write_dataset
from tests.test_lake import holder as lock_holder
from warehouse import catalog, lake
from warehouse.errors import LakeError, SourceError, WarehouseError
from warehouse.maintenance import vacuum

INGEST = sys.modules["warehouse.ingest"]


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder but the lock, with its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != lake.LOCK
    }


def committed(folder: Path) -> set[str]:
    """The files that the warehouse on disk consists of, whatever this process has open."""
    with tempfile.TemporaryDirectory() as elsewhere:
        database = shutil.copy(folder / lake.DATABASE, elsewhere)
        with duckdb.connect(database, read_only=True) as con:
            return {path for (path,) in con.sql("select path from files").fetchall()} | {lake.DATABASE}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("old") / "old.h5", LAYERS, random_filters(600, seed=1))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = [(5, 0, "0:99"), (6, 0, "100:799")]
    return write_dataset(tmp_path_factory.mktemp("new") / "new.h5", layers, random_filters(800, seed=2))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that fails late, in the last layer."""
    filters = random_filters(600, seed=3)
    filters[599] = np.nan
    return write_dataset(tmp_path_factory.mktemp("broken") / "broken.h5", LAYERS, filters)


@pytest.fixture(scope="module")
def old_warehouse(old: Path) -> Path:
    warehouse.ingest(old, old.parent / "w")
    return old.parent / "w"


@pytest.fixture
def target(tmp_path: Path, old_warehouse: Path) -> Path:
    """A warehouse of ``old``, to be changed."""
    shutil.copytree(old_warehouse, tmp_path / "w")
    return tmp_path / "w"


def n_filters(path: Path) -> int:
    with warehouse.open(path) as wh:
        counts = wh.sql("select count(*) from filters").fetchall() + wh.sql("select n_filters from sources").fetchall()
    assert counts[0] == counts[1]
    return int(counts[0][0])


def test_without_replace_a_warehouse_is_refused_and_untouched(target: Path, new: Path) -> None:
    before = contents(target)
    with pytest.raises(LakeError, match="is a warehouse already; use --replace"):
        warehouse.ingest(new, target)
    assert contents(target) == before


def test_replace_keeps_the_old_state_until_the_commit(target: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(target)
    seen = []

    def build(*arguments: Any) -> None:
        build_catalog(*arguments)
        seen.append({name: digest for name, digest in contents(target).items() if name in before})
        seen.append(committed(target))

    build_catalog = catalog.build
    monkeypatch.setattr(catalog, "build", build)
    warehouse.ingest(new, target, replace=True)
    assert seen == [before, set(before)]
    assert n_filters(target) == 800


def test_replace_leaves_the_old_files_and_says_how_to_free_them(target: Path, new: Path) -> None:
    before = contents(target)
    status, out, err = call_main("ingest", str(new), str(target), "--replace")
    assert (status, out) == (0, "")
    assert f"free them with: warehouse vacuum {target}" in err
    left = [name for name in before if name != lake.DATABASE]
    assert set(left) == set(contents(target)) - committed(target)


def test_a_reader_keeps_answering_after_a_replace(target: Path, new: Path) -> None:
    with warehouse.open(target) as reader:
        before = reader.sql("select sum(w0), count(*) from filters").fetchall()
        warehouse.ingest(new, target, replace=True)
        assert reader.sql("select sum(w0), count(*) from filters").fetchall() == before
        assert reader.scan("filters").collect().height == 600
        assert reader.sql("select count(*) from layers").fetchall() == [(3,)]
    assert n_filters(target) == 800


def test_what_is_opened_after_a_replace_is_new_even_beside_an_old_reader(target: Path, new: Path) -> None:
    with warehouse.open(target):
        warehouse.ingest(new, target, replace=True)
        assert n_filters(target) == 800


def test_vacuum_keeps_the_new_files_even_beside_an_old_reader(target: Path, new: Path) -> None:
    with warehouse.open(target):
        warehouse.ingest(new, target, replace=True)
        vacuum(target)
        assert set(contents(target)) == committed(target)


def test_vacuum_removes_what_a_replace_left_and_nothing_else(target: Path, new: Path) -> None:
    before = contents(target)
    summary = warehouse.ingest(new, target, replace=True)
    names = committed(target)
    kept = {name: digest for name, digest in contents(target).items() if name in names}
    assert vacuum(target) == (len(before) - 1, summary.leftover_bytes)
    assert contents(target) == kept
    assert n_filters(target) == 800
    assert vacuum(target) == (0, 0)
    assert not (target / "lake" / "filters" / "model_id=0").exists()


def test_vacuum_tells_what_it_removed(target: Path, new: Path) -> None:
    n_old = len(contents(target)) - 1
    warehouse.ingest(new, target, replace=True)
    status, out, err = call_main("vacuum", str(target))
    assert (status, out) == (0, "")
    assert err.startswith(f"{target}: removed {n_old} files, ")


def test_vacuum_refuses_what_is_no_warehouse(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "precious.txt").write_text("precious")
    with pytest.raises(LakeError, match="is not a warehouse"):
        vacuum(tmp_path)
    assert (tmp_path / "lake" / "precious.txt").exists()


def test_vacuum_waits_for_no_running_ingest(target: Path) -> None:
    (target / "lake" / "half-written.parquet").touch()
    with lake.lock(target), pytest.raises(LakeError, match="is being written by another process"):
        vacuum(target)
    assert (target / "lake" / "half-written.parquet").exists()


def full_disk(*_: Any) -> None:
    raise duckdb.IOException("IO Error: Could not write file: No space left on device")


@pytest.mark.parametrize("failure", ["weights", "catalog", "interrupt"])
@pytest.mark.parametrize("exists", [True, False], ids=["replace", "anew"])
def test_a_failing_ingest_leaves_the_warehouse_as_it_was_and_nothing_that_vacuum_does_not_clear_away(
    target: Path, new: Path, broken: Path, monkeypatch: pytest.MonkeyPatch, failure: str, exists: bool
) -> None:
    if not exists:
        shutil.rmtree(target)
    before = contents(target)
    progress: Callable[[str, int, int], None] | None = None
    expected: type[BaseException] = SourceError
    if failure == "catalog":
        monkeypatch.setattr(catalog, "help_row", full_disk)
        expected = WarehouseError
    if failure == "interrupt":
        expected = KeyboardInterrupt

        def progress(stage: str, *_: int) -> None:
            if stage == "counting":
                raise KeyboardInterrupt

    with pytest.raises(expected):
        warehouse.ingest(broken if failure == "weights" else new, target, replace=exists, progress=progress)
    monkeypatch.undo()
    assert {name: digest for name, digest in contents(target).items() if name in before} == before
    assert not exists or n_filters(target) == 600
    if failure == "weights":
        assert target.exists() == exists
    else:
        vacuum(target)
    assert contents(target) == before


@pytest.mark.parametrize("step", ["sync", "leftovers"])
def test_whatever_fails_after_the_commit_the_new_files_stay(
    target: Path, new: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    module = lake if step == "sync" else INGEST
    original = getattr(module, step)

    def fail(path: Path, *rest: Any) -> Any:
        if step == "leftovers" or (path == target and n_filters(target) == 800):
            raise KeyboardInterrupt
        return original(path, *rest)

    monkeypatch.setattr(module, step, fail)
    with pytest.raises(KeyboardInterrupt):
        warehouse.ingest(new, target, replace=True)
    assert n_filters(target) == 800


KILLED = """
import os, signal, sys
import warehouse
from warehouse import catalog, changes
source, target, moment, after = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "catalog":
    catalog.help_row = die
if moment == "commit":
    sys.modules["warehouse.lake"].sync = die
def progress(stage, done, total):
    if stage == moment and done > int(after):
        die()
"""


def kill(call: str, source: Path, target: Path, moment: str, after: int = 0) -> None:
    """Kill a process that changes ``target`` by ``call``: in a stage after so many filters, or at a step."""
    arguments = [str(source), str(target), moment, str(after)]
    done = subprocess.run([sys.executable, "-c", f"{KILLED}{call}", *arguments], check=False)
    assert done.returncode == -signal.SIGKILL


def kill_ingest(source: Path, target: Path, moment: str) -> None:
    kill("warehouse.ingest(source, target, replace=True, threads=1, progress=progress)", source, target, moment, 100)


@pytest.mark.parametrize("moment", [pytest.param("converting", marks=pytest.mark.slow), "catalog", "commit"])
def test_a_killed_replace_changes_nothing_and_vacuum_clears_it_away(target: Path, new: Path, moment: str) -> None:
    before = contents(target)
    kill_ingest(new, target, moment)
    left = set(contents(target)) - set(before)
    assert left
    assert {name: digest for name, digest in contents(target).items() if name in before} == before
    assert n_filters(target) == 600
    vacuum(target)
    assert contents(target) == before


def test_a_killed_first_ingest_is_no_warehouse_and_can_be_run_again(tmp_path: Path, old: Path) -> None:
    target = tmp_path / "w"
    kill_ingest(old, target, "counting")
    left = set(contents(target))
    assert left
    with pytest.raises(LakeError, match="is not a warehouse"):
        warehouse.open(target)
    summary = warehouse.ingest(old, target)
    found = set(contents(target))
    assert summary.leftover_bytes == sum((target / name).stat().st_size for name in found - committed(target))
    assert left & committed(target), "nothing of the first run was of use"
    assert n_filters(target) == 600
    vacuum(target)
    assert set(contents(target)) == committed(target)


def test_the_names_of_new_folders_are_on_the_disk_before_anything_is_committed(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced, original = tmp_path / "some" / "where" / "w", [], lake.sync

    def sync(path: Path) -> None:
        # a name counts from when what it names is there
        synced.append((path, sorted(each.name for each in path.iterdir()) if path.is_dir() else None))
        original(path)

    monkeypatch.setattr(lake, "sync", sync)
    warehouse.ingest(old, target)
    before_commit = synced[: [path for path, _ in synced].index(target)]
    for parent, name in [(tmp_path, "some"), (tmp_path / "some", "where"), (tmp_path / "some" / "where", "w")]:
        assert (parent, [name]) in before_commit


@pytest.fixture
def holder(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes into ``target``."""
    with lock_holder(target) as process:
        yield process
        process.kill()


def test_a_target_that_another_process_writes_is_refused_until_that_ends(
    target: Path, new: Path, holder: subprocess.Popen[str]
) -> None:
    before = contents(target)
    status, out, err = call_main("ingest", str(new), str(target), "--replace")
    assert (status, out) == (1, "")
    assert err == (
        f"error: {target} is being written by another process (process id {holder.pid}); wait for it to end\n"
    )
    assert contents(target) == before
    assert n_filters(target) == 600
    holder.kill()
    holder.wait()
    warehouse.ingest(new, target, replace=True)
    assert n_filters(target) == 800


def test_who_comes_second_to_a_new_folder_leaves_the_lock_of_the_first(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "w"
    first = []

    def overtaken(folder: Path) -> Any:
        handle = (folder / lake.LOCK).open("a+")
        fcntl.flock(handle, fcntl.LOCK_EX)
        first.append(handle)
        return lake.lock(folder)

    monkeypatch.setattr(INGEST, "lock", overtaken)
    with pytest.raises(LakeError, match="is being written by another process"):
        warehouse.ingest(old, target)
    first[0].close()
    assert (target / lake.LOCK).exists()


def test_a_moved_warehouse_keeps_its_filters(target: Path, tmp_path: Path) -> None:
    before = checksums(target)
    moved = target.rename(tmp_path / "it's [moved]")
    assert checksums(moved) == before
    assert n_filters(moved) == 600
