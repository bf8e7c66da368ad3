"""Virtual datasets read only what the user allows, and only whole: anything else is one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import warehouse
from tests.test_cli import call_main
from tests.test_source import META
from warehouse import changes
from warehouse.errors import SourceError
from warehouse.source import open_source

N = 1000
HALVES = np.random.default_rng(11).normal(size=(2, N // 2, 3, 3))
Layout = Callable[[h5py.VirtualLayout], object]


def write_sources(folder: Path) -> list[Path]:
    """Two files with one half of the filters each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "first.h5", folder / "second.h5"]
    for path, half in zip(paths, HALVES, strict=True):
        with h5py.File(path, "w") as file:
            file["group/filters"] = half
    return paths


def source(name: Path | str, dataset: str = "group/filters", shape: tuple[int, ...] = HALVES[0].shape) -> Any:
    return h5py.VirtualSource(str(name), dataset, shape)


def write_virtual(path: Path, fill: Layout) -> Path:
    layout = h5py.VirtualLayout((N, 3, 3), "f8")
    fill(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("filters", layout)
        file["meta"] = np.frombuffer(META, "u1")
    return path


def halves(*names: Path | str) -> Layout:
    def fill(layout: h5py.VirtualLayout) -> None:
        for half, name in enumerate(names):
            layout[half * N // 2 : (half + 1) * N // 2] = source(name)

    return fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the sources are, apart from the virtual dataset."""
    write_sources(tmp_path / "sources")
    return tmp_path / "sources"


@pytest.fixture
def virtual(tmp_path: Path, folder: Path) -> Path:
    return write_virtual(tmp_path / "data" / "dataset.h5", halves(folder / "first.h5", folder / "second.h5"))


def weights(filters: np.ndarray) -> np.ndarray:
    """What reading all of it must give."""
    return filters.reshape(-1, 9).astype(np.float32)


def refuse(path: Path, message: str, *allowed: Path) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path, allow_sources=allowed)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("allowed", [["."], ["first.h5", "second.h5"], [".."]])
def test_allowed_sources_are_read_as_one_dataset(virtual: Path, folder: Path, allowed: list[str]) -> None:
    with open_source(virtual, allow_sources=[folder / name for name in allowed]) as opened:
        assert opened.n_filters == N
        np.testing.assert_array_equal(opened.read(0, N), weights(HALVES))
        np.testing.assert_array_equal(opened.read(450, 620), weights(HALVES)[450:620])
        assert opened.meta().n_rows == 1


@pytest.mark.parametrize("allowed", [[], ["first.h5"], ["first.h5", "other"]])
def test_each_source_has_to_be_allowed(virtual: Path, folder: Path, allowed: list[str]) -> None:
    (folder / "other").mkdir()
    refuse(virtual, r"reads '.*\.h5'; .* --allow-source", *(folder / name for name in allowed))


def test_a_virtual_dataset_may_map_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "dataset.h5"
    write_virtual(path, halves(".", path))
    with h5py.File(path, "a") as file:
        file["group/filters"] = HALVES[0]
    with open_source(path) as opened:
        np.testing.assert_array_equal(opened.read(0, N), weights(np.stack([HALVES[0], HALVES[0]])))


def test_a_relative_name_is_looked_up_beside_the_file(tmp_path: Path) -> None:
    write_sources(tmp_path / "data" / "parts")
    path = write_virtual(tmp_path / "data" / "dataset.h5", halves("parts/first.h5", "./parts/../parts/second.h5"))
    refuse(path, "--allow-source")
    with open_source(path, allow_sources=[tmp_path / "data" / "parts"]) as opened:
        np.testing.assert_array_equal(opened.read(0, N), weights(HALVES))


def test_a_link_to_a_file_counts_as_the_file(tmp_path: Path, folder: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("first.h5", "second.h5"):
        (inside / name).symlink_to(folder / name)
    path = write_virtual(tmp_path / "dataset.h5", halves(inside / "first.h5", inside / "second.h5"))
    refuse(path, str(folder / "first.h5"), inside)
    with open_source(path, allow_sources=[folder]) as opened:
        np.testing.assert_array_equal(opened.read(0, N), weights(HALVES))


def test_every_file_that_hdf5_might_take_has_to_be_allowed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prefix of the environment goes before the file's own folder, the working directory after it."""
    path = write_virtual(folder / "dataset.h5", halves("first.h5", "second.h5"))
    for other, setting in (
        (tmp_path / "prefixed", lambda: monkeypatch.setenv("HDF5_VDS_PREFIX", f"/nowhere:{tmp_path}/prefixed")),
        (tmp_path / "working", lambda: monkeypatch.chdir(tmp_path / "working")),
        (folder / "origin", lambda: monkeypatch.setenv("HDF5_VDS_PREFIX", "${ORIGIN}/origin")),
    ):
        write_sources(other)
        allowed = folder if folder not in other.parents else folder / "first.h5"
        with monkeypatch.context():
            setting()
            refuse(path, str(other), *([folder / "second.h5", allowed] if allowed != folder else [folder]))
        monkeypatch.undo()
    absolute = write_virtual(tmp_path / "absolute.h5", halves("/nowhere/first.h5", folder / "second.h5"))
    write_sources(tmp_path)
    refuse(absolute, str(tmp_path / "first.h5"), folder)


def missing_source(folder: Path) -> Layout:
    return halves(folder / "first.h5", folder / "third.h5")


def missing_dataset(folder: Path) -> Layout:
    return lambda layout: layout.__setitem__(slice(0, 500), source(folder / "first.h5", "group/weights"))


def a_folder(folder: Path) -> Layout:
    return halves(folder / "first.h5", folder)


def gap(folder: Path) -> Layout:
    def fill(layout: h5py.VirtualLayout) -> None:
        layout[:500] = source(folder / "first.h5")
        layout[501:] = source(folder / "second.h5")[1:]

    return fill


def overlap(folder: Path) -> Layout:
    def fill(layout: h5py.VirtualLayout) -> None:
        layout[:500] = source(folder / "first.h5")
        layout[499:999] = source(folder / "second.h5")

    return fill


def partial_filters(folder: Path) -> Layout:
    def fill(layout: h5py.VirtualLayout) -> None:
        layout[:500, :, :2] = source(folder / "first.h5")[:, :, :2]

    return fill


def every_other(folder: Path) -> Layout:
    return lambda layout: layout.__setitem__(slice(0, N, 2), source(folder / "first.h5"))


def beyond_the_source(folder: Path) -> Layout:
    return lambda layout: layout.__setitem__(slice(0, N), source(folder / "first.h5", shape=(N, 3, 3)))


def nothing(_folder: Path) -> Layout:
    return lambda _layout: None


def outside(folder: Path) -> Layout:
    HALVES[0].tofile(folder / "outside.bin")
    with h5py.File(folder / "bad.h5", "w") as file:
        file.create_dataset("group/filters", (500, 3, 3), "f8", external=[("outside.bin", 0, HALVES[0].nbytes)])
    return halves(folder / "bad.h5", folder / "second.h5")


def nested(folder: Path) -> Layout:
    layout = h5py.VirtualLayout((500, 3, 3), "f8")
    layout[:] = source("/etc/passwd")
    with h5py.File(folder / "bad.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("group/filters", layout)
    return halves(folder / "bad.h5", folder / "second.h5")


def linked(target: Any, at: str) -> Callable[[Path], Layout]:
    def make(folder: Path) -> Layout:
        with h5py.File(folder / "bad.h5", "w") as file:
            file[at] = target
        return halves(folder / "bad.h5", folder / "second.h5")

    return make


def huge_chunks(folder: Path) -> Layout:
    with h5py.File(folder / "bad.h5", "w") as file:
        dataset = file.create_dataset("group/filters", (10**7, 3, 3), "f8", chunks=(10**7, 3, 3), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0), b"a bomb")
    return halves(folder / "bad.h5", folder / "second.h5")


def packed(folder: Path) -> Layout:
    with h5py.File(folder / "bad.h5", "w") as file:
        file.create_dataset("group/filters", data=HALVES[0], compression="gzip")
    return halves(folder / "bad.h5", folder / "second.h5")


def never_written(folder: Path) -> Layout:
    with h5py.File(folder / "bad.h5", "w") as file:
        file.create_dataset("group/filters", (500, 3, 3), "f8")
    return halves(folder / "bad.h5", folder / "second.h5")


HOSTILE = [
    (missing_source, "third.h5', which is missing"),
    (missing_dataset, "group/weights is missing"),
    (a_folder, "which is no file"),
    (gap, r"in one piece up to 500"),
    (overlap, r"in one piece up to 500"),
    (partial_filters, r"in one piece up to 0"),
    (every_other, "scattered"),
    (beyond_the_source, "maps other filters than /group/filters"),
    (nothing, r"in one piece up to 0"),
    (outside, "other files"),
    (nested, "other files"),
    (linked(h5py.ExternalLink("first.h5", "group/filters"), "group/filters"), "link"),
    (linked(h5py.ExternalLink("first.h5", "group"), "group"), "link"),
    (linked(h5py.SoftLink("/other"), "group/filters"), "link"),
    (huge_chunks, "chunks of 686 MiB"),
    (packed, "packed chunks; h5repack -f NONE"),
    (never_written, "never written"),
]


@pytest.mark.parametrize(("make", "message"), HOSTILE)
def test_an_allowed_virtual_dataset_still_has_to_be_sound(
    make: Callable[[Path], Layout], message: str, tmp_path: Path, folder: Path
) -> None:
    refuse(write_virtual(tmp_path / "dataset.h5", make(folder)), message, folder)


@pytest.mark.parametrize(
    ("file", "dataset", "message"),
    [("first.h5", "endless", "unlimited"), ("%b.h5", "endless", "numbers"), ("first.h5", "part%b", "numbers")],
)
def test_mappings_that_grow_are_refused(file: str, dataset: str, message: str, tmp_path: Path, folder: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((500, 3, 3), (h5py.h5s.UNLIMITED, 3, 3))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), block=(500, 3, 3), stride=(500, 3, 3))
    mapped = h5py.h5s.create_simple((500, 3, 3)) if "%" in file + dataset else space
    plist.set_virtual(space, str(folder / file).encode(), dataset.encode(), mapped)
    with h5py.File(tmp_path / "dataset.h5", "w", libver="latest") as opened:
        h5py.h5d.create(opened.id, b"filters", h5py.h5t.IEEE_F64LE, space, plist)
    refuse(tmp_path / "dataset.h5", message, folder)


def test_a_virtual_table_of_layers_is_refused_even_from_allowed_files(tmp_path: Path, folder: Path) -> None:
    with h5py.File(folder / "meta.h5", "w") as file:
        file["meta"] = np.frombuffer(META, "u1")
    path = write_virtual(tmp_path / "dataset.h5", halves(folder / "first.h5", folder / "second.h5"))
    layout = h5py.VirtualLayout((len(META),), "u1")
    layout[:] = h5py.VirtualSource(str(folder / "meta.h5"), "meta", (len(META),))
    with h5py.File(path, "a") as file:
        del file["meta"]
        file.create_virtual_dataset("meta", layout)
    with open_source(path, allow_sources=[folder]) as opened, pytest.raises(SourceError, match="/meta keeps its data"):
        opened.meta()


def test_what_is_allowed_has_to_exist(virtual: Path, folder: Path) -> None:
    refuse(virtual, "--allow-source .*elsewhere: No such file", folder, folder / "elsewhere")


@pytest.mark.slow
def test_ingest_append_and_the_command_line_take_the_option(virtual: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--allow-source"):
        warehouse.ingest(virtual, tmp_path / "refused")
    assert warehouse.ingest(virtual, tmp_path / "one", allow_sources=[folder]).filters == N
    command = ["ingest", str(virtual), str(tmp_path / "two")]
    refused = call_main(*command)
    assert (refused.status, refused.out) == (1, "")
    assert "--allow-source" in refused.err
    sources = [str(folder / "first.h5"), str(folder / "second.h5")]
    assert call_main(*command, "--allow-source", sources[0], "--allow-source", sources[1]).status == 0
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as file:
        file["filters"], file["meta"] = HALVES.reshape(N, 3, 3) + 1, np.frombuffer(META, "u1")
    warehouse.ingest(plain, tmp_path / "three")
    assert changes.append(virtual, tmp_path / "three", allow_sources=[folder]).filters == N
    command = ["ingest", "--append", str(virtual), str(tmp_path / "four"), "--allow-source", str(folder)]
    warehouse.ingest(plain, tmp_path / "four")
    assert call_main(*command).status == 0
