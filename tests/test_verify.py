"""Damage of every kind is found, named and told in a line each; a sound warehouse, however it came about, passes."""

import errno
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

import warehouse
from tests.damage import UNCLAIMED, edit, file_of, flip, lines, named, relative, tell
from tests.test_add import WEIGHTS
from tests.test_cli import call_main
from tests.test_ingest import random_filters, write_dataset
from tests.test_maintenance import contents
from warehouse import block_checksums, changes, lake, lake_check
from warehouse.errors import LakeError
from warehouse.maintenance import vacuum


def assert_sound(folder: Path, *, layers: int, filters: int) -> None:
    before = contents(folder)
    for quick in (False, True):
        found = warehouse.verify(folder, quick=quick)
        assert found.problems == ()
        assert found.is_sound
        assert (found.filters, found.layers, found.quick) == (filters, layers, quick)
        assert found.recomputed == (0 if quick else layers)
    assert contents(folder) == before


def test_a_warehouse_with_nan_layers_and_unclaimed_filters_is_sound(sound: Path) -> None:
    assert_sound(sound, layers=5, filters=800)


def test_a_fresh_warehouse_is_sound_in_each_layout(sample_warehouse: Path, lens_warehouse: Path) -> None:
    assert_sound(sample_warehouse, layers=80, filters=20_000)
    assert_sound(lens_warehouse, layers=80, filters=20_000)


def test_a_warehouse_stays_sound_through_every_change(target: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other.h5", [(4, 0, "0:49"), (9, 0, "60:99")], random_filters(100, seed=5))
    changes.append(other, target)
    changes.add(target, [warehouse.extract(WEIGHTS, name="mine")])
    changes.remove(target, [1, "mine"])
    changes.refit(target)
    found = warehouse.verify(target)
    assert (found.problems, found.filters, found.layers, found.recomputed) == ((), 800 - 180 + 100, 5, 5)
    assert found.leftovers
    vacuum(target)
    assert warehouse.verify(target).leftovers == ()
    assert_sound(target.rename(tmp_path / "it's [moved]"), layers=5, filters=720)


def test_warehouses_of_real_models_are_sound(zoo_warehouse: Path, lens_data_warehouse: Path) -> None:
    assert warehouse.verify(zoo_warehouse).problems == ()
    assert warehouse.verify(lens_data_warehouse, quick=True).problems == ()


def test_a_sound_warehouse_is_one_line_and_status_0(sound: Path) -> None:
    told = f"{sound} is sound: 19 files, 800 filters, 5 layers, "
    assert call_main("verify", str(sound)) == (0, f"{told}of which 5 were computed anew from their filters\n", "")
    assert call_main("verify", str(sound), "--quick") == (0, f"{told}by sizes and counts\n", "")


def test_a_problem_is_one_line_that_tells_the_file_and_what_to_do_and_status_1(target: Path) -> None:
    path = file_of(target, "layer_quality")
    flip(path, 100)
    status, out, err = call_main("verify", str(target))
    assert (status, err) == (1, f"{target}: 1 problem\n")
    assert out == (
        f"{relative(target, path)}: is damaged: its SHA-256 is not that in table files; "
        "put back a sound copy of it, or make the warehouse anew with `warehouse ingest --replace`\n"
    )


@pytest.mark.parametrize("part", [0, 0.5, 1], ids=["header", "middle", "footer"])
@pytest.mark.parametrize("kind", ["warehouse.duckdb", f"lake/filters/model_id={lake.NO_MODEL}", "lake/models"])
def test_a_flipped_byte_is_found_and_its_file_named(target: Path, kind: str, part: float) -> None:
    path = target / kind if (target / kind).is_file() else next((target / kind).iterdir())
    flip(path, int(part * (path.stat().st_size - 20)))
    assert named(warehouse.verify(target)) == {relative(target, path)}


def assert_flips_are_found(folder: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != lake.LOCK)
    for number in rng.integers(len(files), size=n):
        path = files[number]
        position, mask = int(rng.integers(path.stat().st_size)), int(rng.integers(1, 256))
        flip(path, position, mask)
        assert named(warehouse.verify(folder, layers=1)) == {relative(folder, path)}, (path, position, mask)
        flip(path, position, mask)
    assert warehouse.verify(folder).is_sound


def test_flips_at_random_in_any_file_are_found_and_that_file_named(target: Path) -> None:
    assert_flips_are_found(target, 6, seed=6)


@pytest.mark.slow
def test_many_flips_at_random_are_found(target: Path, sample_warehouse: Path, tmp_path: Path) -> None:
    assert_flips_are_found(target, 100, seed=7)
    assert_flips_are_found(shutil.copytree(sample_warehouse, tmp_path / "sample.warehouse"), 100, seed=8)


def test_a_flipped_byte_in_any_column_of_filters_that_no_layer_claims_is_named(target: Path) -> None:
    path = file_of(target, "filters", lake.NO_MODEL)
    group = pq.read_metadata(path).row_group(0)
    assert (group.num_rows, group.num_columns) == (UNCLAIMED, 11)
    for column in map(group.column, range(group.num_columns)):
        position = column.data_page_offset + column.total_compressed_size // 2
        flip(path, position)
        assert named(warehouse.verify(target, layers=0)) == {relative(target, path)}, column.path_in_schema
        flip(path, position)
    assert warehouse.verify(target).is_sound


def test_quick_reads_footers_but_not_what_is_before_them(target: Path) -> None:
    path = file_of(target, "filters", 0)
    flip(path, 100)
    assert warehouse.verify(target, quick=True).is_sound
    assert not warehouse.verify(target).is_sound
    flip(path, -5)
    assert named(warehouse.verify(target, quick=True)) == {relative(target, path)}


@pytest.mark.parametrize(("name", "quick"), [("filters", True), ("filters", False), ("layer_histograms", True)])
def test_a_file_that_is_missing_cut_short_or_too_long_is_named(target: Path, name: str, quick: bool) -> None:
    path = file_of(target, name, 2 if name == "filters" else None)
    data = path.read_bytes()
    for change, told in [
        (lambda: path.write_bytes(data[: len(data) // 2]), f"bytes instead of {len(data):,}"),
        (lambda: path.write_bytes(data + b"\0"), f"has {len(data) + 1:,} bytes instead of"),
        (path.unlink, "is missing"),
        (path.mkdir, "is no regular file"),
    ]:
        change()
        found = warehouse.verify(target, quick=quick)
        assert named(found) == {relative(target, path)}
        assert told in lines(found)


@pytest.mark.parametrize("quick", [False, True])
def test_everything_that_is_wrong_is_told(target: Path, quick: bool) -> None:
    damaged = [file_of(target, "filters", 0), file_of(target, "models"), file_of(target, "basis")]
    damaged[0].unlink()
    damaged[1].write_bytes(b"PAR1")
    flip(damaged[2], -2)
    (target / "notes.txt").touch()
    edit(target, "delete from layer_quality where layer_id = 1", "drop macro entropy10")
    found = warehouse.verify(target, quick=quick)
    assert named(found) == {*(relative(target, path) for path in damaged), "notes.txt", lake.DATABASE}
    told = (
        "layer_quality: layer_id 1 has 0 rows instead of 1.*(entropy10).* is missing|scalar macro entropy10 is missing"
    )
    assert re.search(told, lines(found), re.DOTALL)
    status, out, err = call_main("verify", str(target), *["--quick"] * quick)
    assert (status, out, err) == (1, f"{lines(found)}\n", f"{target}: {len(found.problems)} problems\n")


FOREIGN = (
    "notes.txt",
    "warehouse.duckdb.wal",
    "warehouse.duckdb.old",
    "lake/.DS_Store",
    "lake/layers/copy of layers.parquet",
    "lake/filters/model_id=0/part-0.parquet",
    "lake/filters/model_id=x/0123456789abcdef0123456789abcdef.parquet",
    "lake/filters/0123456789abcdef0123456789abcdef.parquet",
    "lake/basis/more/0123456789abcdef0123456789abcdef.parquet",
    "lake/model_id=0/0123456789abcdef0123456789abcdef.parquet",
    "warehouse.duckdb.17.tmp",
    "warehouse.duckdb.mine.tmp.spill/thing",
    "more/ingest.journal",
    "lake/other/0123456789abcdef0123456789abcdef.parquet",
    "0123456789abcdef0123456789abcdef.parquet",
    "more/deep/thing",
)


@pytest.mark.parametrize("quick", [False, True])
def test_foreign_files_anywhere_in_the_folder_are_named(target: Path, quick: bool) -> None:
    for name in FOREIGN:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        # an empty log of changes is one that DuckDB passes over
        (target / name).touch()
    (target / "lake" / "basis" / "link").symlink_to(target.parent)
    problems = {each.path: each for each in warehouse.verify(target, quick=quick).problems}
    assert problems.keys() == {*FOREIGN, "lake/basis/link"}
    assert problems.pop("lake/basis/link").what == "is a symbolic link"
    assert {each.remedy for each in problems.values()} == {"move it elsewhere"}
    before = contents(target)
    assert vacuum(target) == (0, 0)
    assert contents(target) == before
    assert (target / "lake" / "basis" / "link").is_symlink()


def test_leftovers_of_our_own_are_told_but_no_problem(target: Path) -> None:
    unique = "0123456789abcdef0123456789abcdef"
    spill = target / f"{lake.DATABASE}.{unique}.tmp.spill"
    spill.mkdir()
    left = [
        file_of(target, "layers").with_name(f"{unique}.parquet"),
        file_of(target, "filters", lake.NO_MODEL).with_name(f"{unique}.parquet"),
        target / f"{lake.DATABASE}.{unique}.tmp",
        spill / "duckdb_temp_storage.tmp",
        target / lake.JOURNAL,
    ]
    for path in left:
        path.touch()
    names = {relative(target, path) for path in left}
    assert set(warehouse.verify(target).leftovers) == names
    status, out, err = call_main("verify", str(target), "--quick")
    assert (status, out.count("\n")) == (0, 1)
    told, _, paths = err.partition("`: ")
    assert told == f"{target}: 5 leftovers, removed by `warehouse vacuum {target}"
    assert set(paths.rstrip().split(", ")) == names
    assert vacuum(target) == (5, 0)
    assert warehouse.verify(target).leftovers == ()
    assert not spill.exists()


def test_what_lies_behind_a_symbolic_link_is_not_ours_to_remove(target: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "models").mkdir(parents=True)
    precious = [elsewhere / f"{17:032x}.parquet", elsewhere / "models" / f"{17:032x}.parquet"]
    for path in precious:
        path.touch()
    (target / "lake" / "models" / f"{18:032x}.parquet").symlink_to(precious[0])
    shutil.move(target / "lake" / "basis", tmp_path / "basis")
    (target / "lake" / "basis").symlink_to(elsewhere)
    assert vacuum(target) == (0, 0)
    assert all(path.exists() for path in precious)


def test_names_of_files_cannot_break_or_colour_a_line(target: Path) -> None:
    (target / "a\nb is sound\x1b[32m").touch()
    os.close(os.open(os.fsencode(target) + b"/\xff", os.O_CREAT))
    status, out, _ = call_main("verify", str(target), "--quick")
    told = "is no part of the warehouse; move it elsewhere"
    assert status == 1
    assert sorted(out.splitlines()) == [rf"\udcff: {told}", rf"a\nb is sound\x1b[32m: {told}"]


@pytest.mark.parametrize("quick", [False, True])
def test_files_of_two_models_that_changed_places_are_named(target: Path, quick: bool) -> None:
    one, other = file_of(target, "filters", 0), file_of(target, "filters", 2)
    aside = one.rename(target / "aside")
    other.rename(one)
    aside.rename(other)
    both = {relative(target, one), relative(target, other)}
    assert named(warehouse.verify(target, quick=quick)) == both
    # nor does it help to tell the database
    tell(target, one, 200)
    tell(target, other, 400)
    found = warehouse.verify(target, quick=quick)
    assert named(found) == both | {lake.DATABASE}
    assert "its filters 600 to 799 are, by table layers, not those of whole layers of model_id 0" in lines(found)
    assert "200 filters in the files of model_id=0 instead of 400" in lines(found)


def test_views_and_macros_of_a_hostile_warehouse_never_run(target: Path) -> None:
    secret = target.parent / "secret"
    secret.write_text("secret")
    read = f"(select content from read_text('{secret}'))"
    edit(
        target, *(f"create macro {name}(x) as error('ran: ' || {read})" for name in ("count", "sum", "format", "hash"))
    )
    found = warehouse.verify(target)
    assert "scalar macro count was not made by ingest (and 3 more of the kind)" in lines(found)
    assert len(found.problems) == 1
    edit(
        target,
        "drop view layer_meta cascade",
        "alter table layers rename to old",
        f"create view layers as select error('ran: ' || {read}) as layer_id",
    )
    told = lines(warehouse.verify(target))
    assert "has no table layers" in told
    assert "ran" not in told
    edit(target, "drop table files", f"create view files as select error('ran: ' || {read}) as path")
    told = lines(warehouse.verify(target))
    assert "lists no files" in told
    assert "ran" not in told


@pytest.mark.parametrize("size", [0, 100, 4096, 12_287, 12_288, 300_000, -262_144, -1])
def test_a_database_that_is_cut_short_is_named(target: Path, size: int) -> None:
    database = target / lake.DATABASE
    database.write_bytes(database.read_bytes()[:size])
    found = warehouse.verify(target)
    assert named(found) == {lake.DATABASE}
    assert re.search("its header, the first 12,288 bytes, is damaged|it has [0-9,]+ bytes instead of", lines(found))


def test_a_database_that_is_another_file_is_named(target: Path) -> None:
    (target / lake.DATABASE).write_bytes(b"SQLite format 3\0" * 4096)
    assert "its header, the first 12,288 bytes, is damaged" in lines(warehouse.verify(target))


def test_beside_a_damaged_database_the_files_are_checked_still(target: Path) -> None:
    path = file_of(target, "filters", 2)
    flip(path, 50)
    database = target / lake.DATABASE
    blocks = range(12_288, database.stat().st_size, 262_144)
    for block in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        flip(database, block + 1000)
        with duckdb.connect() as con:
            try:
                con.execute(f"attach '{database}' as w (read_only)")
                con.sql("select path from w.files").fetchall()
            except duckdb.Error:
                readable = False
            else:
                readable = True
        found = warehouse.verify(target)
        assert f"{lake.DATABASE}: 1 of its " in lines(found)
        assert (relative(target, path) in named(found)) == readable
        flip(database, block + 1000)


def test_the_checksums_of_blocks_hold_for_a_database_with_free_blocks(tmp_path: Path) -> None:
    path = tmp_path / "some.duckdb"
    with duckdb.connect() as con:
        con.execute(f"attach '{path}' as elsewhere")
        for statement in (
            "create table elsewhere.a as select hash(range) from range(500000)",
            "drop table elsewhere.a",
        ):
            con.execute(statement)
            con.execute("checkpoint elsewhere")
        con.execute("detach elsewhere")
    n_blocks = (path.stat().st_size - 12_288) // 262_144
    assert n_blocks > 3
    assert block_checksums.damage(path) is None
    for start in range(12_288, path.stat().st_size, 262_144):
        flip(path, start + 262_143, 128)
        damage = block_checksums.damage(path)
        assert damage
        assert damage.what == f"1 of its {n_blocks} blocks are damaged, the first at byte {start:,}"
        flip(path, start + 262_143, 128)


def test_what_is_no_warehouse_is_an_error_as_for_every_command(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(LakeError, match="is not a warehouse"):
            warehouse.verify(folder)
    status, out, err = call_main("verify", str(tmp_path))
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {tmp_path} is not a warehouse")


def test_fewer_layers_are_spread_evenly_and_always_the_same(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    recompute = lake_check.recompute

    def recording(path: Path, first: int, runs: Any, *rest: Any, done: Any) -> list[str]:
        seen.append([run.layer_id for run in runs])
        return recompute(path, first, runs, *rest, done=done)

    monkeypatch.setattr(lake_check, "recompute", recording)
    for threads in (1, 3):
        assert warehouse.verify(sample_warehouse, layers=5, threads=threads).recomputed == 5
        assert sorted(layer for layers in seen for layer in layers) == [0, 19, 39, 59, 79]
        seen.clear()
    status, out, _ = call_main("verify", str(sample_warehouse), "--layers", "2")
    assert (status, "of which 2 were computed anew" in out) == (0, True)
    assert warehouse.verify(sample_warehouse, layers=0).recomputed == 0


def test_a_disk_that_fails_is_told_with_the_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(target, "filters", 1)

    def fail(file: Any, kind: str) -> Any:
        if file.name == str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return file_digest(file, kind)

    file_digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", fail)
    found = warehouse.verify(target)
    assert [(each.path, each.what) for each in found.problems] == [
        (relative(target, path), "cannot be read: Input/output error")
    ]


def test_progress_counts_rows_and_then_the_filters_that_are_computed_anew(sound: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    warehouse.verify(sound, progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["checking files", "recomputing"]
    for stage in stages:
        told = [(done, total) for each, done, total in calls if each == stage]
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]
    assert calls[-1][2] == 800 - UNCLAIMED
