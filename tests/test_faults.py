"""An ingest that is killed, or whose disk fails, anywhere: the old state or the new one, and the next run goes on."""

import contextlib
import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import pytest

import warehouse
from tests.damage import flip
from warehouse import changes, codec, journal, passes
from warehouse.connection import connect
from warehouse.errors import LakeError, SourceError, WarehouseError
from warehouse.lake import JOURNAL, LakeFile
from warehouse.maintenance import committed_paths, vacuum

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.test_faults"])
MODELS = 8
OLD_FILTERS, NEW_FILTERS = 3_000, 9_000


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset of the old state and that of the new one."""
    folder = tmp_path_factory.mktemp("faults")
    old, new = folder / "old.h5", folder / "new.h5"
    warehouse.write_sample(old, filters=OLD_FILTERS, layers=20, models=3)
    warehouse.write_sample(new, filters=NEW_FILTERS, layers=40, models=MODELS)
    return old, new


def content(path: Path) -> list[Any]:
    """All that a warehouse holds, filter by filter, but for names of files and times."""
    questions = (
        "select filter_id, layer_id, model_id, w0, w4, w8 from filters order by filter_id",
        "from layer_quality order by layer_id",
        "from layer_moments order by layer_id",
        "from layer_histograms order by all",
        "from layer_checksums order by layer_id",
        "from models order by model_id",
        "from histogram_range",
    )
    with connect(path) as con:
        # text, for NaN is not equal to itself
        return [str(con.sql(question).fetchall()) for question in questions]


@pytest.fixture(scope="module")
def built(sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the warehouses ``old`` and ``new``, made when nothing failed."""
    folder = tmp_path_factory.mktemp("built")
    for name, source in zip(("old", "new"), sources, strict=True):
        warehouse.ingest(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def states(built: Path) -> dict[str, list[Any]]:
    """What the old and the new state hold."""
    return {name: content(built / name) for name in ("old", "new")}


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["new folder", "replaced"])
def target(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Path:
    """A folder with the old state in it, or none."""
    if request.param:
        shutil.copytree(built / "old", tmp_path / "w")
    return tmp_path / "w"


def before_call(name: str, n: int, action: Callable[[], None]) -> contextlib.AbstractContextManager[Any]:
    """Do something before the n-th call of a function."""
    module, _, function = name.rpartition(".")
    owner: Any = __import__("pkgutil").resolve_name(module)
    real, calls, guard = getattr(owner, function), iter(range(1, 1_000_000)), threading.Lock()

    def wrapped(*arguments: Any, **named: Any) -> Any:
        with guard:
            call = next(calls)
        if call == n:
            action()
        return real(*arguments, **named)

    return patch.object(owner, function, wrapped)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ingest_killed_at(source: Path, target: Path, name: str, n: int) -> None:
    with before_call(name, n, die):
        warehouse.ingest(source, target, replace=True, threads=2)


def ingest_killed_after(source: Path, target: Path, seconds: float) -> None:
    threading.Timer(seconds, die).start()
    warehouse.ingest(source, target, replace=True, threads=2)


def in_process(work: Callable[..., None], *arguments: Any) -> int | None:
    """Exit code of a process that does the work."""
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@contextlib.contextmanager
def converted_segments() -> Iterator[list[int]]:
    """Counts the segments that are read from the source meanwhile."""
    counted: list[int] = []
    real = passes.convert

    def convert(*arguments: Any, **named: Any) -> Any:
        counted.append(1)
        return real(*arguments, **named)

    with patch.object(passes, "convert", convert):
        yield counted


def state_of(target: Path, states: dict[str, list[Any]]) -> str:
    """Which of the states a folder is in; "none" if it is no warehouse, and no other is possible."""
    if not (target / "warehouse.duckdb").exists():
        return "none"
    found = content(target)
    return next(name for name, expected in states.items() if found == expected)


def assert_only_committed_files_are_left(target: Path) -> None:
    named = {target / name for name in committed_paths(target)}
    assert {path for path in (target / "lake").rglob("*") if path.is_file()} == named
    assert {path.name for path in target.iterdir()} <= {"lake", "warehouse.duckdb", ".lock"}


# the point, at which call of what, how many segments are read again at most, whether it is committed already
POINTS = {
    "before the first file is on the disk": ("warehouse.lake._sync_named", 1, MODELS, False),
    "before the fourth file is on the disk": ("warehouse.lake._sync_named", 4, MODELS, False),
    "before the third segment is noted": ("warehouse.journal.Journal.put", 3, MODELS - 2, False),
    "before the range": ("warehouse.passes.extremes_in", 1, 0, False),
    "before the third segment is counted": ("warehouse.passes.count", 3, 0, False),
    "before a table is written": ("warehouse.lake.Lake.write_table", 3, 0, False),
    "before the database is built": ("warehouse.catalog.build", 1, 0, False),
    "before an object is created": ("warehouse.catalog.create", 30, 0, False),
    "before the commit": ("warehouse.lake.Lake.commit", 1, 0, False),
    "before the rename": ("pathlib.Path.replace", 1, 0, False),
    "after the rename": ("warehouse.journal.Journal.remove", 1, MODELS, True),
}


FAST_POINTS = [
    "before the fourth file is on the disk",
    "before the third segment is noted",
    "before the third segment is counted",
    "before the rename",
    "after the rename",
]


def slow(case: Sequence[Any], is_slow: bool) -> Any:
    """A case that may be one of those that run with the slow tests only."""
    return pytest.param(*case, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("point", [slow([point], point not in FAST_POINTS) for point in POINTS])
def test_a_kill_leaves_the_old_state_or_the_new_and_the_next_run_goes_on(
    point: str, sources: tuple[Path, Path], states: dict[str, list[Any]], target: Path
) -> None:
    name, n, again, committed = POINTS[point]
    before = state_of(target, states)
    assert in_process(ingest_killed_at, sources[1], target, name, n) == -signal.SIGKILL
    assert state_of(target, states) == ("new" if committed else before)
    with converted_segments() as converted:
        warehouse.ingest(sources[1], target, replace=True)
    assert len(converted) <= again
    assert state_of(target, states) == "new"
    vacuum(target)
    assert_only_committed_files_are_left(target)
    assert state_of(target, states) == "new"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_time_leaves_one_of_the_states_and_the_next_run_succeeds(
    seed: int, sources: tuple[Path, Path], built: Path, states: dict[str, list[Any]], tmp_path: Path
) -> None:
    target = shutil.copytree(built / "old", tmp_path / "w")
    draw = random.Random(seed)  # noqa: S311
    for _ in range(3):
        in_process(ingest_killed_after, sources[1], target, draw.uniform(0.0, 1.2))
        assert state_of(target, states) in ("old", "new")
    warehouse.ingest(sources[1], target, replace=True)
    vacuum(target)
    assert state_of(target, states) == "new"
    assert_only_committed_files_are_left(target)


def fail(code: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(code, os.strerror(code))

    return action


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)], ids=["full", "broken"]
)
@pytest.mark.parametrize(
    ("name", "n"),
    [
        *(slow(("warehouse.lake._HashingFile.write", n), n not in (4, 20)) for n in (1, 2, 4, 12, 20)),
        *(slow(("os.fsync", n), n != 5) for n in (1, 5, 20)),
        slow(("pathlib.Path.replace", 1), True),
        ("warehouse.journal._framed", 3),
    ],
)
def test_a_disk_that_fails_at_any_write_is_one_clear_error_and_the_next_run_goes_on(
    name: str, n: int, code: int, sources: tuple[Path, Path], states: dict[str, list[Any]], target: Path
) -> None:
    before = state_of(target, states)
    reason = "the disk is full" if code == errno.ENOSPC else os.strerror(code)
    with before_call(name, n, fail(code)), pytest.raises(LakeError, match=f"cannot write .*{reason}") as raised:
        warehouse.ingest(sources[1], target, replace=True)
    assert "\n" not in str(raised.value)
    assert state_of(target, states) == before
    assert ("goes on from there" in str(raised.value)) == (target / JOURNAL).exists()
    warehouse.ingest(sources[1], target, replace=True)
    assert state_of(target, states) == "new"
    vacuum(target)
    assert_only_committed_files_are_left(target)


def ingest_without_room_for_the_database(source: Path, target: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with before_call("warehouse.catalog.build", 1, limit), contextlib.suppress(WarehouseError):
        warehouse.ingest(source, target, replace=True)
        os._exit(9)
    os._exit(7)


def test_a_database_that_cannot_be_written_leaves_the_old_state_and_the_next_run_goes_on(
    sources: tuple[Path, Path], states: dict[str, list[Any]], target: Path
) -> None:
    before = state_of(target, states)
    assert in_process(ingest_without_room_for_the_database, sources[1], target) == 7
    assert state_of(target, states) == before
    with converted_segments() as converted:
        warehouse.ingest(sources[1], target, replace=True)
    assert not converted
    assert state_of(target, states) == "new"


def interrupt_at(source: Path, target: Path, name: str, n: int, **options: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with before_call(name, n, interrupt), pytest.raises(KeyboardInterrupt):
        warehouse.ingest(source, target, replace=True, **options)


def test_a_reader_that_is_there_while_the_warehouse_is_replaced_finishes_with_the_old_data(
    sources: tuple[Path, Path], built: Path, tmp_path: Path
) -> None:
    with warehouse.open(shutil.copytree(built / "old", tmp_path / "w")) as reader:
        lazy = reader.sql("select count(*), sum(w0) from filters")
        frame = reader.scan("filters")
        expected = reader.sql("select count(*), sum(w0) from filters").fetchall()
        warehouse.ingest(sources[1], tmp_path / "w", replace=True)
        assert lazy.fetchall() == expected == reader.sql("select count(*), sum(w0) from filters").fetchall()
        assert frame.collect().height == OLD_FILTERS


def test_another_source_does_not_go_on_from_anothers_work_and_loses_none_of_it(
    sources: tuple[Path, Path], states: dict[str, list[Any]], tmp_path: Path
) -> None:
    target = tmp_path / "w"
    interrupt_at(sources[1], target, "warehouse.catalog.build", 1)
    with pytest.raises(LakeError, match=r"an unfinished ingest of new\.h5 \(9,000 filters\).* name, .*--restart"):
        warehouse.ingest(sources[0], target)
    with converted_segments() as converted:
        warehouse.ingest(sources[1], target)
    assert not converted
    assert state_of(target, states) == "new"


def test_a_source_that_changed_is_not_mixed_with_what_it_was(
    sources: tuple[Path, Path], states: dict[str, list[Any]], tmp_path: Path
) -> None:
    source, target = tmp_path / "new.h5", tmp_path / "w"
    source.write_bytes(sources[1].read_bytes())
    interrupt_at(source, target, "warehouse.catalog.build", 1)
    os.utime(source, (1, 1))
    with pytest.raises(LakeError, match="differs from this one in mtime"):
        warehouse.ingest(source, target)
    with converted_segments() as converted:
        warehouse.ingest(source, target, restart=True)
    assert len(converted) == MODELS
    assert state_of(target, states) == "new"
    assert_only_committed_files_are_left(target)


def overwrite_bytes(source: Path) -> None:
    """Change the last quarter of a file where it lies."""
    with source.open("r+b") as file:
        file.seek(source.stat().st_size * 3 // 4)
        rest = file.read()
        file.seek(-len(rest), os.SEEK_CUR)
        file.write(bytes(byte ^ 1 for byte in rest))


@pytest.mark.parametrize("alter", [overwrite_bytes, lambda source: os.truncate(source, source.stat().st_size + 1)])
def test_a_source_that_changes_while_it_is_read_is_refused(
    alter: Callable[[Path], None],
    sources: tuple[Path, Path],
    states: dict[str, list[Any]],
    target: Path,
    tmp_path: Path,
) -> None:
    source, before = shutil.copy(sources[1], tmp_path / "new.h5"), state_of(target, states)
    with (
        before_call("warehouse.passes.convert", 4, lambda: alter(source)),
        pytest.raises(SourceError, match=r"new\.h5: changed while it was read; run it again"),
    ):
        warehouse.ingest(source, target, replace=True, threads=1)
    assert state_of(target, states) == before
    if before == "none":
        assert not target.exists()
    else:
        assert_only_committed_files_are_left(target)


@pytest.fixture
def virtual(sources: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A virtual dataset with the filters of the new state, and the file that it reads them from."""
    path, stored = tmp_path / "virtual.h5", tmp_path / "stored" / "filters.h5"
    stored.parent.mkdir()
    with h5py.File(sources[1]) as whole, h5py.File(stored, "w") as file:
        file["filters"] = whole["filters"][:]
        layout = h5py.VirtualLayout(file["filters"].shape, file["filters"].dtype)
    with h5py.File(sources[1]) as whole, h5py.File(path, "w", libver="latest") as file:
        layout[:] = h5py.VirtualSource(str(stored), "filters", layout.shape)
        file.create_virtual_dataset("filters", layout)
        whole.copy("meta", file)
    return path, stored


def touch(stored: Path) -> None:
    os.utime(stored, ns=(0, stored.stat().st_mtime_ns + 1))


def overwrite(stored: Path) -> None:
    """Change the last filter and leave everything else, the time too, as it was."""
    times = stored.stat()
    with h5py.File(stored, "r+") as file:
        file["filters"][-1] += 1
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(("alter", "told"), [(touch, "sha256_header"), (overwrite, "sha256_samples")])
def test_a_file_that_a_virtual_dataset_reads_is_not_mixed_with_what_it_was(
    alter: Callable[[Path], None], told: str, virtual: tuple[Path, Path], tmp_path: Path
) -> None:
    source, stored = virtual
    target, allowed = tmp_path / "w", [stored.parent]
    for segments in (MODELS, 0):
        with converted_segments() as converted:
            interrupt_at(source, target, "warehouse.catalog.build", 1, allow_sources=allowed)
        assert len(converted) == segments
    alter(stored)
    with pytest.raises(LakeError, match=f"an unfinished ingest of virtual.h5 .*, which differs .* in {told};"):
        warehouse.ingest(source, target, allow_sources=allowed)
    warehouse.ingest(source, target, allow_sources=allowed, restart=True)
    warehouse.ingest(source, tmp_path / "anew", allow_sources=allowed)
    assert content(target) == content(tmp_path / "anew")


def test_a_virtual_dataset_over_another_file_is_appended_and_over_the_same_one_refused(
    virtual: tuple[Path, Path], sources: tuple[Path, Path], tmp_path: Path
) -> None:
    source, stored = virtual
    target = warehouse.ingest(sources[0], tmp_path / "w").path
    changes.append(source, target, allow_sources=[stored])
    touch(stored)
    with pytest.raises(LakeError, match=r"holds virtual\.h5 already"):
        changes.append(source, target, allow_sources=[stored])
    overwrite(stored)
    assert changes.append(source, target, allow_sources=[stored]).filters == NEW_FILTERS


def test_a_hostile_journal_removes_no_file_but_those_of_a_lake(sources: tuple[Path, Path], tmp_path: Path) -> None:
    target, precious = tmp_path / "w", tmp_path / "precious"
    interrupt_at(sources[1], target, "warehouse.passes.extremes_in", 1)
    precious.touch()
    named = passes.Converted(LakeFile("filters", "../precious", 0, 0, ""), [])
    forged = journal._framed(codec.encode(named, {"stage": "converted", "index": "99"}))
    with (target / JOURNAL).open("ab") as file:
        file.write(forged)
    assert len(journal.journaled_files(target)) == MODELS
    warehouse.ingest(sources[1], target, restart=True)
    assert precious.exists()


def test_a_torn_or_damaged_end_of_the_journal_costs_only_what_it_noted(
    sources: tuple[Path, Path], states: dict[str, list[Any]], tmp_path: Path
) -> None:
    damages: list[tuple[int, Callable[[bytes], bytes]]] = [
        (1, lambda noted: noted[:-7]),
        (1, lambda noted: noted[:-40] + bytes([noted[-40] ^ 1]) + noted[-39:]),
        # as a power cut leaves what had a size and no contents yet
        (0, lambda noted: noted + bytes(4096)),
        (1, lambda noted: noted[:-40] + bytes(40)),
        (MODELS, lambda noted: bytes(len(noted))),
    ]
    for lost, damage in damages:
        target = tmp_path / "w"
        interrupt_at(sources[1], target, "warehouse.passes.extremes_in", 1)
        (target / JOURNAL).write_bytes(damage((target / JOURNAL).read_bytes()))
        with converted_segments() as converted:
            warehouse.ingest(sources[1], target, replace=True)
        assert len(converted) == lost
        assert state_of(target, states) == "new"


def test_an_ingest_that_another_overtook_leaves_that_ones_warehouse_alone(
    sources: tuple[Path, Path], states: dict[str, list[Any]], tmp_path: Path
) -> None:
    target = tmp_path / "w"
    # when the first has seen that nothing is there, and waits for the lock
    with (
        before_call("warehouse.ingest.make_folder", 1, lambda: warehouse.ingest(sources[1], target)),
        pytest.raises(LakeError, match="is a warehouse already"),
    ):
        warehouse.ingest(sources[0], target)
    assert state_of(target, states) == "new"
    assert warehouse.verify(target).is_sound


def test_a_file_that_was_lost_or_damaged_meanwhile_is_written_again(
    sources: tuple[Path, Path], states: dict[str, list[Any]], tmp_path: Path
) -> None:
    interrupt_at(sources[1], tmp_path / "w", "warehouse.catalog.build", 1)
    lost, short, flipped, unreadable, *_ = sorted((tmp_path / "w/lake/filters").rglob("*.parquet"))
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    flip(flipped, 1000)
    opened = Path.open

    def open_(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == unreadable:
            fail(errno.EIO)()
        return opened(path, *arguments, **named)

    with converted_segments() as converted, patch.object(Path, "open", open_):
        warehouse.ingest(sources[1], tmp_path / "w")
    assert len(converted) == 4
    assert state_of(tmp_path / "w", states) == "new"


def test_vacuum_frees_an_unfinished_ingest_which_then_begins_anew(
    sources: tuple[Path, Path], states: dict[str, list[Any]], target: Path
) -> None:
    before = state_of(target, states)
    interrupt_at(sources[1], target, "warehouse.catalog.build", 1)
    n_files, n_bytes = vacuum(target)
    assert n_files > MODELS
    assert n_bytes > 36 * NEW_FILTERS
    assert state_of(target, states) == before
    if before == "none":
        with pytest.raises(LakeError, match="is not a warehouse"):
            vacuum(target)
    else:
        assert vacuum(target) == (0, 0)
    with converted_segments() as converted:
        warehouse.ingest(sources[1], target, replace=True)
    assert len(converted) == MODELS


@pytest.mark.parametrize("stage", ["trial_basis", "count"])
def test_a_source_that_is_refused_leaves_nothing_even_of_an_earlier_run(
    stage: str, sources: tuple[Path, Path], target: Path, states: dict[str, list[Any]]
) -> None:
    before = state_of(target, states)
    interrupt_at(sources[1], target, "warehouse.passes.count", 1)

    def refuse() -> None:
        # as HDF5 tells that a chunk is damaged
        raise SourceError("refused") from OSError("inflate() failed")

    with before_call(f"warehouse.passes.{stage}", 1, refuse), pytest.raises(SourceError, match=r"refused$"):
        warehouse.ingest(sources[1], target, replace=True)
    assert state_of(target, states) == before
    assert_only_committed_files_are_left(target)


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), MemoryError("no room")])
def test_a_source_that_cannot_be_read_for_once_costs_nothing_of_what_is_finished(
    error: Exception, sources: tuple[Path, Path], target: Path, states: dict[str, list[Any]]
) -> None:
    before = state_of(target, states)
    interrupt_at(sources[1], target, "warehouse.passes.count", 1)

    def refuse() -> None:
        raise error

    with (
        before_call("warehouse.source.Source._fill", 1, refuse),
        pytest.raises(SourceError, match=r"new\.h5: cannot be read.*; what is finished is kept, and the same command"),
    ):
        warehouse.ingest(sources[1], target, replace=True)
    assert state_of(target, states) == before
    with converted_segments() as converted:
        warehouse.ingest(sources[1], target, replace=True)
    assert not converted
    assert state_of(target, states) == "new"


def test_vacuum_keeps_a_lake_whose_database_was_moved_away(sources: tuple[Path, Path], tmp_path: Path) -> None:
    target = warehouse.ingest(sources[0], tmp_path / "w").path
    (target / "warehouse.duckdb").rename(tmp_path / "elsewhere")
    before = sorted(target.rglob("*.parquet"))
    with pytest.raises(LakeError, match="is not a warehouse"):
        vacuum(target)
    assert sorted(target.rglob("*.parquet")) == before
