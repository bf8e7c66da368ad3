"""A file that crashes the HDF5 library, or holds it forever, costs a process that nobody misses."""

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import warehouse
from tests.test_ingest import write_dataset
from warehouse import probe
from warehouse.errors import SourceError, WarehouseError
from warehouse.extraction import extract

FRAIL = f"""
import os, signal, sys, time
sys.path.append({str(Path(probe.__file__).parent)!r})
import probe_process

def look_at(file):
    if "crashes" in file:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hangs" in file:
        time.sleep(60)

probe_process._look_at = look_at
probe_process.main(float(sys.argv[1]), int(sys.argv[2]))
"""
"""A process that some files crash or hold, whatever is mended in HDF5."""
REFUSED = {"crashes": r"crashes \(status -11\) on opening", "hangs": "takes longer than 0.5 s to open"}

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms")


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """A process for each test alone."""
    probe._end()
    yield
    probe._end()


@pytest.fixture
def frail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frail.py").write_text(FRAIL)
    monkeypatch.setattr(probe, "_SCRIPT", tmp_path / "frail.py")
    monkeypatch.setattr(probe, "SECONDS", 0.5)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "sound.h5", [(0, 0, "0:9")], np.ones((10, 3, 3)))


@pytest.fixture(params=REFUSED)
def harmful(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = write_dataset(tmp_path / f"{request.param}.h5", [(0, 0, "0:9")], np.ones((10, 3, 3)))
    with h5py.File(path, "a") as file:
        file.create_group(request.param)
    return path


@pytest.mark.usefixtures("frail")
def test_a_dataset_that_ends_or_holds_hdf5_is_refused(harmful: Path, sound: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{harmful.name}: the HDF5 library {REFUSED[harmful.stem]}"):
        warehouse.ingest(harmful, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    probe.require_survivable(sound)


@pytest.mark.usefixtures("frail")
def test_a_source_of_a_virtual_dataset_is_no_exception(harmful: Path, tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((10, 3, 3), "f8")
    layout[:] = h5py.VirtualSource(str(harmful), "filters", (10, 3, 3))
    with h5py.File(tmp_path / "virtual.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("filters", layout)
    with pytest.raises(SourceError, match=f"virtual.h5: the HDF5 library {REFUSED[harmful.stem]} '{harmful.name}'"):
        warehouse.ingest(tmp_path / "virtual.h5", tmp_path / "new", allow_sources=[tmp_path])


@pytest.mark.usefixtures("frail")
def test_a_model_is_no_exception(harmful: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=REFUSED[harmful.stem]):
        extract(harmful)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(harmful, "model.weights.h5")
    with pytest.raises(SourceError, match=REFUSED[harmful.stem]):
        extract(tmp_path / "model.keras")


@pytest.mark.usefixtures("frail")
@pytest.mark.parametrize("harmful", ["hangs"], indirect=True)
def test_an_alarm_that_the_caller_blocks_or_ignores_still_ends_it(harmful: Path) -> None:
    code = (
        "import pathlib, signal, sys; from warehouse import probe;"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); signal.signal(signal.SIGALRM, signal.SIG_IGN);"
        "probe._SCRIPT, probe.SECONDS = pathlib.Path(sys.argv[1]), 0.5;"
        "probe.require_survivable(pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(probe._SCRIPT), str(harmful)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert REFUSED["hangs"] in done.stderr


def test_a_memory_limit_below_the_own_is_kept(sound: Path) -> None:
    code = (
        "import pathlib, resource, sys; from warehouse import probe;"
        "probe.MEMORY_BYTES = (2 << 30) + 1; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30));"
        "probe.require_survivable(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sound)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("frail")
def test_a_process_that_somebody_stops_is_not_waited_for(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe.require_survivable(sound)
    monkeypatch.setattr("warehouse.patience.SECONDS", 0)
    assert probe._running is not None
    os.kill(probe._running.pid, signal.SIGSTOP)
    with pytest.raises(SourceError, match=REFUSED["hangs"]):
        probe.require_survivable(sound)


def test_a_process_that_does_not_start_is_not_blamed_on_the_file(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(probe, "_SCRIPT", tmp_path / "broken.py")
    with pytest.raises(WarehouseError, match=r"does not start \(status 3\); .*broken.py") as caught:
        warehouse.ingest(sound, tmp_path / "new")
    assert not isinstance(caught.value, SourceError)
    assert sound.name not in str(caught.value)


def test_what_hdf5_refuses_by_itself_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "none.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    probe.require_survivable(path)
    probe.require_survivable(tmp_path / "missing.h5")


@pytest.mark.usefixtures("frail")
@pytest.mark.parametrize("harmful", ["hangs"], indirect=True)
def test_links_that_lead_out_of_the_file_are_not_followed(harmful: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["outside"] = h5py.ExternalLink(str(harmful), "/hangs")
    probe.require_survivable(tmp_path / "links.h5")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file["a/b"] = file["/"]
        file["soft"] = h5py.SoftLink("/soft")
    probe.require_survivable(tmp_path / "circle.h5")


def test_one_process_serves_many_files(sound: Path) -> None:
    probe.require_survivable(sound)
    first = probe._running
    probe.require_survivable(sound)
    assert first is not None
    assert probe._running is first


def test_a_process_that_ended_between_two_files_is_started_anew(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe.require_survivable(sound)
    first = probe._running
    assert first is not None
    first.kill()
    first.wait()
    monkeypatch.setattr(first, "poll", lambda: None)  # as if it ended after the last look at it
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
