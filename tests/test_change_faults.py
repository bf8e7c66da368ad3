"""Models or a dataset added by a process that is killed: the old state or the new one, and the next run succeeds."""

import random
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import warehouse
from tests.test_add import WEIGHTS
from tests.test_faults import (
    assert_only_committed_files_are_left,
    before_call,
    content,
    die,
    in_process,
    overwrite_bytes,
    state_of,
)
from warehouse import changes
from warehouse.errors import LakeError, SourceError
from warehouse.maintenance import vacuum

pytestmark = pytest.mark.slow


def change(kind: str, source: Path, target: Path) -> None:
    """Add the new dataset to a warehouse, or a model."""
    if kind == "append":
        changes.append(source, target, threads=2)
    else:
        changes.add(target, [warehouse.extract(WEIGHTS, name="mine")], threads=2)


def change_killed_at(kind: str, source: Path, target: Path, name: str, n: int) -> None:
    tempfile.tempdir = str(target.parent)  # what a killed process leaves there
    with before_call(name, n, die):
        change(kind, source, target)


def change_killed_after(kind: str, source: Path, target: Path, seconds: float) -> None:
    tempfile.tempdir = str(target.parent)
    threading.Timer(seconds, die).start()
    change(kind, source, target)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset to append."""
    path = tmp_path_factory.mktemp("source") / "new.h5"
    warehouse.write_sample(path, filters=9_000, layers=40, models=8)
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse in the old state."""
    folder = tmp_path_factory.mktemp("old")
    warehouse.write_sample(folder / "old.h5", filters=3_000, layers=20, models=3)
    return warehouse.ingest(folder / "old.h5", folder / "w").path


@pytest.fixture(scope="module")
def states(source: Path, old: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Any]]]:
    """For each change what the old state holds, and the new one when nothing fails."""
    made = {}
    for kind in ("append", "add"):
        target = shutil.copytree(old, tmp_path_factory.mktemp("states") / "w")
        change(kind, source, target)
        made[kind] = {"old": content(old), "new": content(target)}
    return made


# the point, at which call of what, whether it is committed already
POINTS = {
    "before the first file is on the disk": ("warehouse.lake._sync_named", 1, False),
    "before a table is written": ("warehouse.lake.Lake.write_table", 3, False),
    "before the database is built": ("warehouse.catalog.build", 1, False),
    "before an object is created": ("warehouse.catalog.create", 30, False),
    "before the rename": ("pathlib.Path.replace", 1, False),
    "after the rename": ("warehouse.changes.replace", 1, True),
}


@pytest.mark.parametrize("kind", ["append", "add"])
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_change_leaves_the_old_state_or_the_new_and_the_next_run_succeeds(
    point: str, kind: str, source: Path, old: Path, states: dict[str, Any], tmp_path: Path
) -> None:
    target, either = shutil.copytree(old, tmp_path / "w"), states[kind]
    name, n, committed = POINTS[point]
    assert in_process(change_killed_at, kind, source, target, name, n) == -signal.SIGKILL
    assert state_of(target, either) == ("new" if committed else "old")
    if committed:
        with pytest.raises(LakeError, match="already"):
            change(kind, source, target)
    else:
        change(kind, source, target)
    assert state_of(target, either) == "new"
    vacuum(target)
    assert_only_committed_files_are_left(target)
    assert state_of(target, either) == "new"


@pytest.mark.parametrize("kind", ["append", "add"])
@pytest.mark.parametrize("seed", range(8))
def test_a_change_killed_at_any_time_leaves_one_of_the_states(
    seed: int, kind: str, source: Path, old: Path, states: dict[str, Any], tmp_path: Path
) -> None:
    target, either = shutil.copytree(old, tmp_path / "w"), states[kind]
    draw = random.Random(seed)  # noqa: S311
    for _ in range(3):
        in_process(change_killed_after, kind, source, target, draw.uniform(0.0, 1.0))
        assert state_of(target, either) in ("old", "new")
    if state_of(target, either) == "old":
        change(kind, source, target)
    vacuum(target)
    assert state_of(target, either) == "new"
    assert_only_committed_files_are_left(target)


def test_a_dataset_that_changes_while_it_is_appended_is_refused(
    source: Path, old: Path, states: dict[str, dict[str, list[Any]]], tmp_path: Path
) -> None:
    target, changing = shutil.copytree(old, tmp_path / "w"), shutil.copy(source, tmp_path / "new.h5")
    with (
        before_call("warehouse.passes.convert", 4, lambda: overwrite_bytes(changing)),
        pytest.raises(SourceError, match=r"new\.h5: changed while it was read"),
    ):
        changes.append(changing, target, threads=1)
    assert_only_committed_files_are_left(target)
    assert state_of(target, states["append"]) == "old"
