"""The lake: files read back bit for bit, a true list of them, nothing left of failures, one writer at a time."""

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import lake
from warehouse.errors import LakeError
from warehouse.lake import Lake, leftovers, lock
from warehouse.plan import Run

# 3 row groups of 5, 1 and 7 filters from number 100 on
CHUNKS = [
    [Run(3, 8, 100, 102), Run(4, 8, 102, 105)],
    [Run(4, 8, 105, 106)],
    [Run(4, 8, 106, 110), Run(6, 8, 110, 113)],
]


def any_bits(n: int) -> np.ndarray:
    """Weights of every kind: NaN with payloads, infinities, subnormal numbers, both zeros."""
    bits = np.random.default_rng(5).integers(0, 2**32, (9, n), dtype=np.uint32)
    bits[:, 0] = [0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC00002, 0x7F7FFFFF]
    return bits.view(np.float32)


def write(target: Lake, model_id: int | None, weights: np.ndarray, chunks: list[list[Run]]) -> Path:
    first = chunks[0][0].start
    with target.write_filters(model_id) as (path, writer):
        for chunk in chunks:
            writer.write(weights[:, chunk[0].start - first : chunk[-1].stop - first], chunk)
    return path


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_filter_file_says_for_each_filter_its_number_and_layer(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(9, 13)).astype(np.float32)
    path = write(Lake(tmp_path), 8, weights, CHUNKS)
    assert pq.ParquetFile(path).num_row_groups == 3
    table = pl.read_parquet(path, hive_partitioning=False)
    assert table.columns == ["filter_id", "layer_id", *(f"w{i}" for i in range(9))]
    assert table["filter_id"].to_list() == list(range(100, 113))
    assert table["layer_id"].to_list() == [3] * 2 + [4] * 8 + [6] * 3
    np.testing.assert_array_equal(table.select(pl.col("^w.$")).to_numpy(), weights.T)


def test_filter_numbers_beyond_32_bits_are_kept(tmp_path: Path) -> None:
    start = 2**31 - 2
    path = write(Lake(tmp_path), 1, any_bits(4), [[Run(5, 1, start, start + 4)]])
    assert pq.read_table(path)["filter_id"].to_pylist() == list(range(start, start + 4))


def test_filters_that_no_layer_claims_have_no_layer_and_no_model(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    write(target, None, any_bits(4), [[Run(None, None, 0, 4)]])
    write(target, 0, any_bits(2), [[Run(0, 0, 4, 6)]])
    paths = [str(tmp_path / file.path) for file in target.files]
    rows = duckdb.execute(
        "select model_id, layer_id, count(*) from read_parquet($1, hive_partitioning = true) group by all order by all",
        [paths],
    ).fetchall()
    assert rows == [(0, 0, 2), (None, None, 4)]


def test_the_list_of_files_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    write(target, 8, any_bits(13), CHUNKS)
    target.write_table("models", pa.table({"a": list(range(1000))}))
    part = pa.table({"b": [1.5, None]})
    target.write_batches("layers", part.schema, iter([part, part, part]))
    target.write_batches("empty", part.schema, iter([]))
    assert {file.name: file.n_rows for file in target.files} == {"filters": 13, "models": 1000, "layers": 6, "empty": 0}
    assert {tmp_path / file.path for file in target.files} == set(files_below(tmp_path))
    for file in target.files:
        content = (tmp_path / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert Path(file.path).parts[:2] == ("lake", file.name)
    (layers,) = (file for file in target.files if file.name == "layers")
    assert pq.read_table(tmp_path / layers.path).to_pydict() == {"b": [1.5, None] * 3}


def test_many_threads_can_write_at_once(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda model: write(target, model, any_bits(13), CHUNKS), range(24)))
    assert len({file.path for file in target.files}) == len(files_below(tmp_path)) == 24


def test_discarding_leaves_nothing_of_its_own_and_everything_else(tmp_path: Path) -> None:
    committed = Lake(tmp_path)
    committed.write_table("models", pa.table({"a": [1]}))
    before = files_below(tmp_path)
    target = Lake(tmp_path)
    target.write_table("models", pa.table({"a": [2]}))
    with contextlib.suppress(KeyboardInterrupt), target.write_filters(8) as (_, writer):
        writer.write(any_bits(13)[:, :5], CHUNKS[0])
        raise KeyboardInterrupt
    assert len(files_below(tmp_path)) == 3
    target.discard()
    assert files_below(tmp_path) == before
    committed.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_not_finished_is_not_listed(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    with pytest.raises(ZeroDivisionError), target.write_filters(8):
        raise ZeroDivisionError
    assert target.files == []


def test_leftovers_are_the_files_that_nothing_names(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    for number in range(3):
        target.write_table("models", pa.table({"a": [number]}))
    paths = [file.path for file in target.files]
    (tmp_path / "warehouse.duckdb").touch()
    unfinished = tmp_path / f"warehouse.duckdb.{17:032x}.tmp"
    unfinished.touch()
    (tmp_path / "notes.txt").touch()
    found = leftovers(tmp_path, paths[:1])
    assert sorted(found) == sorted([tmp_path / paths[1], tmp_path / paths[2], unfinished])


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, os.strerror(errno.EIO))]
)
def test_a_failing_disk_is_one_line_that_names_the_file(tmp_path: Path, number: int, reason: str) -> None:
    target = Lake(tmp_path)
    with (
        patch.object(lake._HashingFile, "write", side_effect=OSError(number, "as the system says")),
        pytest.raises(LakeError, match=rf"cannot write {tmp_path}/lake/models/\w+\.parquet: {reason}") as raised,
    ):
        target.write_table("models", pa.table({"a": [1]}))
    assert "\n" not in str(raised.value)
    assert target.files == []
    target.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_only_when_synced_is_noticed(tmp_path: Path) -> None:
    target = Lake(tmp_path)
    with patch("os.fsync", side_effect=OSError(errno.EDQUOT, "")):
        target.write_table("models", pa.table({"a": [1]}))
        with pytest.raises(LakeError, match="the disk is full"):
            target.wait_for_disk()


LIMITED_WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.plan import Run

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
lake = Lake(Path(sys.argv[1]))
weights = np.random.default_rng(0).normal(size=(9, 20_000)).astype(np.float32)
try:
    with lake.write_filters(1) as (_, writer):
        writer.write(weights, [Run(0, 1, 0, 20_000)])
except LakeError as error:
    print(error)
    lake.discard()
"""


def test_a_file_that_the_system_refuses_to_let_grow_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED_WRITER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path}/lake/filters/model_id=1/")
    assert os.strerror(errno.EFBIG) in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from warehouse.lake import lock

with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process


def test_a_second_writer_is_refused_and_told_the_process_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(LakeError, match=rf"process id {process.pid}\)") as raised, lock(tmp_path):
            pytest.fail("two processes hold the lock")
        assert "\n" not in str(raised.value)
    assert process.returncode == 0
    with lock(tmp_path):
        pass


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    with lock(tmp_path), pytest.raises(LakeError, match=rf"process id {os.getpid()}\)"), lock(tmp_path):
        pytest.fail("the lock of the living is as good as none")


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    with lock(tmp_path):
        pass


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"cannot write .*No such file or directory"), lock(tmp_path / "none"):
        pytest.fail("locked a folder that does not exist")
