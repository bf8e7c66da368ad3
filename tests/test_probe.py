"""A file that crashes the HDF5 library, or holds it forever, costs a process that nobody misses."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import warehouse
from tests.fuzz.targets import CORPUS
from tests.test_ingest import write_dataset
from warehouse import probe
from warehouse.errors import SourceError
from warehouse.extraction import extract

CRASHES = CORPUS / "dataset" / "virtual_mapping_that_crashes_hdf5"
HANGS = CORPUS / "dataset" / "virtual_mapping_that_holds_hdf5_forever"
REFUSED = {CRASHES: r"crashes \(status -11\) on opening", HANGS: "takes longer than 1 s to open"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that waits one second, for this test alone."""
    monkeypatch.setattr(probe, "SECONDS", 1.0)
    probe._end()
    yield
    probe._end()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "sound.h5", [(0, 0, "0:9")], np.ones((10, 3, 3)))


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.name)
def test_a_dataset_that_ends_or_holds_hdf5_is_refused(path: Path, sound: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{path.name}: the HDF5 library {REFUSED[path]}"):
        warehouse.ingest(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert warehouse.ingest(sound, tmp_path / "new").path.exists()


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.name)
def test_a_source_of_a_virtual_dataset_is_no_exception(path: Path, tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((4, 3, 3), "f8")
    layout[:] = h5py.VirtualSource(str(path), "filters", (4, 3, 3))
    with h5py.File(tmp_path / "virtual.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("filters", layout)
    with pytest.raises(SourceError, match=f"virtual.h5: the HDF5 library {REFUSED[path]} '{path.name}'"):
        warehouse.ingest(tmp_path / "virtual.h5", tmp_path / "new", allow_sources=[CORPUS])


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.name)
def test_a_model_is_no_exception(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=REFUSED[path]):
        extract(path)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(path, "model.weights.h5")
    with pytest.raises(SourceError, match=REFUSED[path]):
        extract(tmp_path / "model.keras")


def test_what_hdf5_refuses_by_itself_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "none.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    probe.require_survivable(path)
    probe.require_survivable(tmp_path / "missing.h5")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file["a/b"] = file["/"]
        file["soft"], file["outside"] = h5py.SoftLink("/soft"), h5py.ExternalLink(str(HANGS), "/filters")
    probe.require_survivable(tmp_path / "circle.h5")


def test_one_process_serves_many_files(sound: Path) -> None:
    probe.require_survivable(sound)
    first = probe._running
    probe.require_survivable(sound)
    assert first is not None
    assert probe._running is first
    first.kill()
    first.wait()
    probe.require_survivable(sound)
    assert probe._running is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_one_of_its_own(sound: Path) -> None:
    probe.require_survivable(sound)
    before = probe._running
    if (child := os.fork()) == 0:
        try:
            probe.require_survivable(sound)
            status = int(probe._running is None or probe._running is before)
            probe._end()
        except BaseException:
            status = 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    probe.require_survivable(sound)
    assert probe._running is before
