"""Dataset files: every storage gives the same blocks, every unfit file one clear line and no open handle."""

import lzma
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import source
from warehouse.errors import SourceError
from warehouse.source import open_source

SHARED = Path(os.environ.get("WAREHOUSE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
N_FILTERS = 1000
FILTERS = np.random.default_rng(7).normal(size=(N_FILTERS, 3, 3))
META = b"model_id,conv_depth,conv_depth_norm,filter_ids\n0,0,0.0,0:999\n"


def write(path: Path, filters: Any = FILTERS, name: str = "filters", userblock: int = 0, **storage: Any) -> Path:
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset(name, data=filters, **storage)
        file["meta"] = np.frombuffer(META, "u1")
    return path


def rows(filters: np.ndarray) -> np.ndarray:
    """What reading all of it must give."""
    return filters.reshape(-1, 9).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces even in a small file."""
    monkeypatch.setattr(source, "_PIECE", 96)


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"userblock": 512},
        {"chunks": (64, 3, 3)},
        {"chunks": (7, 3, 1), "compression": "gzip", "shuffle": True},
        {"chunks": (N_FILTERS, 3, 3), "fletcher32": True},
        {"name": "filter"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f8"])
def test_every_storage_gives_the_same_blocks(path: Path, storage: dict[str, Any], dtype: str) -> None:
    filters = FILTERS.astype(dtype)
    with open_source(write(path, filters, **storage)) as opened:
        block = opened.read(0, N_FILTERS)
        assert (opened.n_filters, opened.dtype, opened.n_bytes) == (N_FILTERS, dtype, path.stat().st_size)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, rows(filters))


@pytest.mark.parametrize("storage", [{}, {"chunks": (64, 9)}], ids=str)
def test_flat_filters_read_as_square_ones(path: Path, storage: dict[str, Any]) -> None:
    with open_source(write(path, FILTERS.reshape(-1, 9), **storage)) as opened:
        np.testing.assert_array_equal(opened.read(0, N_FILTERS), rows(FILTERS))


def test_small_data_inside_the_object_header_is_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4, 3, 3))
        h5py.h5d.create(file.id, b"filters", h5py.h5t.IEEE_F64LE, space, layout)
        file["filters"][:] = FILTERS[:4]
    with open_source(path) as opened:
        np.testing.assert_array_equal(opened.read(0, 4), rows(FILTERS[:4]))


@pytest.fixture(scope="module", params=[{}, {"chunks": (64, 3, 3)}], ids=["contiguous", "chunked"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = write(tmp_path_factory.mktemp("source") / "dataset.h5", **request.param)
    with open_source(path) as opened:
        yield opened


@given(st.integers(0, N_FILTERS), st.integers(0, N_FILTERS))
@settings(max_examples=50, deadline=None)
def test_any_range_is_a_slice_of_the_whole(opened: source.Source, start: int, stop: int) -> None:
    start, stop = sorted((start, stop))
    np.testing.assert_array_equal(opened.read(start, stop), rows(FILTERS)[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, N_FILTERS + 1)])
def test_a_range_beyond_the_file_is_refused(opened: source.Source, start: int, stop: int) -> None:
    with pytest.raises(SourceError, match="1,000"):
        opened.read(start, stop)


def test_threads_read_what_one_reads(opened: source.Source) -> None:
    ranges = [(start, min(start + 170, N_FILTERS)) for start in range(0, N_FILTERS, 170)] * 5
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda ends: opened.read(*ends), ranges))
    for (start, stop), part in zip(ranges, parts, strict=True):
        np.testing.assert_array_equal(part, rows(FILTERS)[start:stop])


def test_coefficients_beyond_float32_become_infinite_without_a_warning(path: Path) -> None:
    filters = np.array([[1e300, -1e300, np.nan, np.inf, 1e-320, 0, 1, 2, 3]])
    with open_source(write(path, filters)) as opened:
        np.testing.assert_array_equal(opened.read(0, 1)[0, :5], [np.inf, -np.inf, np.nan, np.inf, 0])


@pytest.mark.parametrize("storage", [{}, {"chunks": (64, 3, 3)}], ids=["contiguous", "chunked"])
def test_reading_takes_little_more_memory_than_its_result(path: Path, storage: dict[str, Any]) -> None:
    with open_source(write(path, np.zeros((100_000, 3, 3)), **storage)) as opened:
        tracemalloc.start()
        block = opened.read(0, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1.1 * block.nbytes


def test_the_table_of_layers_is_read(opened: source.Source) -> None:
    assert opened.meta().columns["filter_ids"].tolist() == ["0:999"]


@pytest.mark.parametrize("name", ["zoo.h5", "lens.h5", "onnx.h5"])
def test_real_datasets_are_read(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_source(path) as opened, h5py.File(path) as file:
        start, stop = opened.n_filters // 2, opened.n_filters // 2 + 5000
        np.testing.assert_array_equal(opened.read(start, stop), rows(file["filters"][start:stop]))
        last = opened.meta().columns["filter_ids"][-1]
        assert int(last.split(":")[1]) == opened.n_filters - 1


@pytest.mark.parametrize("name", ["dataset.h5.xz", "dataset.h5"])
def test_a_packed_file_reads_as_the_plain_one(path: Path, tmp_path: Path, name: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    plain = write(path).read_bytes()
    with open_source(path) as opened:
        expected = opened.fingerprint()
    packed = tmp_path / "packed" / name
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress(plain))
    steps: list[int] = []
    with open_source(packed, scratch=scratch, progress=lambda done, _total: steps.append(done)) as opened:
        assert (opened.path, opened.n_bytes) == (packed, len(plain))
        np.testing.assert_array_equal(opened.read(0, N_FILTERS), rows(FILTERS))
        found = opened.fingerprint()
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())
    assert steps
    for key in ("size", "sha256_header", "sha256_samples"):
        assert found[key] == expected[key]


def test_a_fingerprint_is_stable_and_notices_changes(path: Path) -> None:
    filters = np.zeros((100_000, 9))
    with open_source(write(path, filters)) as opened:
        first = opened.fingerprint()
        assert opened.fingerprint() == first
    assert first["name"] == "dataset.h5"
    assert first["size"] == path.stat().st_size
    filters[-1, -1] = 1
    with open_source(write(path, filters)) as opened:
        assert opened.fingerprint()["sha256_samples"] != first["sha256_samples"]


def open_handles() -> set[str]:
    """What this process has open besides pipes and sockets."""
    links = Path("/proc/self/fd").iterdir()
    return {str(target) for link in links if link.exists() and (target := link.readlink()).is_file()}


def not_hdf5(path: Path) -> None:
    path.write_bytes(b"model_id,conv_depth\n" * 100)


def nothing(_path: Path) -> None:
    """Leave no file at all."""


def truncated(path: Path) -> None:
    write(path)
    os.truncate(path, path.stat().st_size - 5000)


def truncated_past_its_own_record(path: Path) -> None:
    """Shorten the file and the end of file that its superblock notes, so that HDF5 itself sees nothing."""
    with h5py.File(path, "w") as file:
        file["filters"] = FILTERS
        file.flush()
        offset = file["filters"].id.get_offset()
    end = offset + FILTERS.nbytes - 800
    os.truncate(path, end)
    with path.open("r+b") as file:
        file.seek(40)
        file.write(end.to_bytes(8, "little"))


def linked(path: Path) -> None:
    write(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["filters"] = h5py.ExternalLink("other.h5", "/filters")


def outside(path: Path) -> None:
    FILTERS.tofile(path.with_name("outside.bin"))
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "filters", FILTERS.shape, "f8", external=[(str(path.with_name("outside.bin")), 0, FILTERS.nbytes)]
        )


def never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("filters", (10**12, 3, 3), "f8")


def packed_text(path: Path) -> None:
    path.write_bytes(lzma.compress(b"not a dataset"))


UNFIT = [
    (nothing, "no such file"),
    (Path.mkdir, "a folder"),
    (os.mkfifo, "not a regular file"),
    (not_hdf5, "not an HDF5 file"),
    (packed_text, "not an HDF5 file"),
    (truncated, "truncated"),
    (truncated_past_its_own_record, "damaged or incomplete"),
    (linked, "link"),
    (outside, "other files"),
    (never_written, "never written"),
    (lambda path: write(path, name="weights"), r"no /filters.*'weights'"),
    (lambda path: write(path, name="filters/all"), "not a dataset"),
    (lambda path: write(path, np.zeros((4, 5, 5))), r"shape \(4, 5, 5\)"),
    (lambda path: write(path, np.zeros(9)), r"shape \(9,\)"),
    (lambda path: write(path, 1.0), r"shape \(\)"),
    (lambda path: write(path, h5py.Empty("f8")), r"shape \(\)"),
    (lambda path: write(path, np.zeros((4, 3, 3), int)), "int64"),
    (lambda path: write(path, np.zeros((4, 3, 3), complex)), "complex128"),
    (lambda path: write(path, np.zeros((4, 3, 3), np.longdouble)), "float128"),
    (lambda path: write(path, np.zeros((0, 3, 3))), "no filters"),
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize(("make", "message"), UNFIT)
def test_an_unfit_file_is_one_clear_line_and_no_open_handle(path: Path, make: Any, message: str) -> None:
    make(path)
    before = open_handles()
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert open_handles() == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_closing_leaves_no_open_handle(path: Path) -> None:
    before = open_handles()
    with open_source(write(path)):
        assert str(path) in open_handles()
    assert open_handles() == before


def test_a_file_that_shrinks_while_open_is_an_error(path: Path) -> None:
    with open_source(write(path)) as opened:
        os.truncate(path, 40_000)
        with pytest.raises(SourceError, match="truncated"):
            opened.read(0, N_FILTERS)


def test_a_damaged_chunk_names_the_file(path: Path) -> None:
    write(path, chunks=(N_FILTERS, 3, 3), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["filters"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(64))
    with open_source(path) as opened, pytest.raises(SourceError, match=r"dataset\.h5: .* damaged"):
        opened.read(0, N_FILTERS)


def test_errors_in_the_table_of_layers_name_the_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["filters"] = FILTERS
    with open_source(path) as opened, pytest.raises(SourceError, match=r"dataset\.h5: no /meta"):
        opened.meta()
