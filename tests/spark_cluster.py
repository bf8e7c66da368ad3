"""A standalone Spark cluster of processes of its own on this machine: one master, workers of one core each."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark

HOST = "127.0.0.1"
START_SECONDS = 60.0


@dataclass
class Cluster:
    """The processes of a cluster.

    Attributes
    ----------
    url
        What ``--master`` takes.
    """

    url: str
    master: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    def kill_worker(self, number: int) -> None:
        """Kill a worker with all that it runs, as the loss of its machine would."""
        _kill(self.workers[number])


@contextlib.contextmanager
def cluster(folder: Path, *, workers: int = 2, memory: str = "1g") -> Iterator[Cluster]:
    """Run a cluster while the context lasts.

    Parameters
    ----------
    folder
        For logs and scratch.
    workers, memory
        How many of them, and what each has for its executors.
    """
    with contextlib.ExitStack() as undo:

        def start(name: str, *command: str) -> subprocess.Popen[bytes]:
            log = undo.enter_context((folder / f"{name}.log").open("wb"))
            process = _start(folder, [*command, "--host", HOST, "--webui-port", "0"], log)
            undo.callback(_kill, process)
            return process

        master = start("master", "org.apache.spark.deploy.master.Master", "--port", "0")
        url = _told(folder / "master.log", master, r"Starting Spark master at (spark://\S+)")
        worker = ("org.apache.spark.deploy.worker.Worker", url, "--cores", "1", "--memory", memory)
        running = [
            start(f"worker{i}", *worker, "--work-dir", str(folder / f"work{i}"), "--port", "0") for i in range(workers)
        ]
        for i, process in enumerate(running):
            _told(folder / f"worker{i}.log", process, r"(Successfully registered with master)")
        yield Cluster(url, master, running)


def _start(folder: Path, command: list[str], log: object) -> subprocess.Popen[bytes]:
    home = Path(pyspark.__file__).parent
    variables = {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(folder),
        "SPARK_DAEMON_MEMORY": "256m",
        "PYSPARK_PYTHON": sys.executable,
    }
    # in a session, and so a group, of its own: executors and their Python processes can be found when it is killed
    return subprocess.Popen(
        [str(home / "bin" / "spark-class"), *command],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _told(log: Path, process: subprocess.Popen[bytes], pattern: str) -> str:
    """What a process writes into its log once it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"{log.stem} did not start:\n{log.read_text(errors='replace')}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with those of its session: Python's of an executor have a group of their own."""
    for pid in _of_session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait()


def _of_session(session: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,sess="], check=True, capture_output=True, text=True).stdout
    return [pid for pid, owner in (map(int, line.split()) for line in listed.splitlines()) if owner == session]
