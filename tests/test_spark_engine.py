"""Starting Spark: every way in which that fails is one clear line, and nothing is left running."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.spark_cluster import cluster
from warehouse.errors import EngineError, SourceError

pytest.importorskip("pyspark", reason="pyspark is not installed")

from pyspark.sql import SparkSession

from warehouse.on_spark import engine
from warehouse.on_spark.engine import WAIT, started
from warehouse.on_spark.failures import check_workers, explain, explained, reason
from warehouse.version import __version__

pytestmark = pytest.mark.slow

LOCAL = {"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": "2"}
BATCHES = Iterator[Any]


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    with started("local[2]", LOCAL) as session:
        yield session


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def refusal(master: str | None = "local[1]", conf: dict[str, str] | None = None) -> str:
    """The line with which Spark is refused."""
    with pytest.raises(EngineError) as caught, started(master, conf or {}):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_warehouse_does_not_import_pyspark() -> None:
    code = "import sys, warehouse.cli; print([name for name in sys.modules if name.startswith(('pyspark', 'py4j'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_missing_pyspark_is_told_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert refusal() == "Spark needs the package pyspark; get it with: pip install 'cnn-filter-warehouse[spark]'"


def test_old_pyspark_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyspark.__version__", "3.5.4")
    assert refusal().startswith("pyspark 3.5.4 is too old, 4.1 is needed; get it with: pip install")


def test_missing_java_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal().startswith("Spark needs Java, and there is none; install Java 17")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'openjdk version \"1.8.0_392\"' >&2", "Spark needs Java 17 or newer, and {java} is version 8; install"),
        ("echo 'java version \"16\"' >&2", "Spark needs Java 17 or newer, and {java} is version 16; install"),
        ("echo no libjvm >&2; exit 1", "Spark needs Java, and {java} does not tell its version (no libjvm); install"),
        (None, "Spark needs Java, and JAVA_HOME is {home}, but {java} cannot be run (No such file or directory); inst"),
    ],
)
def test_wrong_java_is_told(script: str | None, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    if script:
        executable(java, script)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert refusal().startswith(told.format(java=java, home=tmp_path))


def test_spark_home_of_another_spark_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert re.fullmatch(
        rf"SPARK_HOME is {tmp_path}, which is not Spark [\d.]+ as pyspark is; unset SPARK_HOME", refusal()
    )


@pytest.mark.parametrize(
    "master",
    ["", "local[", "local[0]", "cluster", "spark://", "spark://a", "spark://a:b", "spark://a:1,", "spark://a:99999"],
)
def test_malformed_master_is_told(master: str) -> None:
    assert refusal(master).startswith(f"{master!r} is no Spark master; write ")
    assert refusal(None, {"spark.master": master}).startswith(f"{master!r} is no Spark master; write ")


def test_spark_connect_is_refused() -> None:
    assert refusal("sc://a:15002").startswith("sc://a:15002 is a Spark Connect server")


def test_unreachable_masters_are_told_at_once() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        begin = time.monotonic()
        told = refusal(f"spark://127.0.0.1:{port},[::1]:{port}")
    assert time.monotonic() - begin < 10
    assert f"(127.0.0.1:{port}: Connection refused; ::1:{port}: " in told


def test_only_names_of_spark_are_settings() -> None:
    for name in ("executor.memory", "spark.", "spark.a b", ""):
        assert refusal(conf={name: "1g"}) == f"{name!r} is no setting of Spark, whose names begin with 'spark.'"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("spark.driver.memory=much", "Spark cannot be started: Invalid maximum heap size: -Xmxmuch"),
        (
            "spark.executor.memory=much",
            "Spark cannot be started: Executor memory must be a positive number",
        ),
        (
            "spark.driver.memory=100m",
            "Spark failed: SparkIllegalArgumentException: Insufficient driver memory",
        ),
        (
            "spark.sql.shuffle.partitions=many",
            "Spark failed: The value 'many' in the config \"spark.sql.shuffle.partitions\" is invalid",
        ),
        ("spark.serializer=none", "Spark failed: ClassNotFoundException: none"),
    ],
)
def test_setting_that_spark_refuses_is_told(setting: str, told: str) -> None:
    name, _, value = setting.partition("=")
    # in a process of its own: this one has a session
    assert told_elsewhere(f"print(refusal(conf={ {name: value} }))").startswith(told)


def test_running_session_is_shared_and_stays(session: SparkSession) -> None:
    for master in (None, "local[2]"):
        with started(master) as other:
            assert other is session
    assert session.range(3).count() == 3
    assert refusal("local[1]") == (
        "this process has a Spark session on local[2] already; stop it, or name no other master"
    )


def test_settings_are_ours_where_the_user_has_none(session: SparkSession) -> None:
    assert session.conf.get("spark.sql.session.timeZone") == "UTC"
    assert session.conf.get("spark.sql.shuffle.partitions") == LOCAL["spark.sql.shuffle.partitions"]
    assert engine._settings("local", {"spark.app.name": "mine"})["spark.app.name"] == "mine"


def in_workers(session: SparkSession, function: Callable[[BATCHES], BATCHES]) -> list[Any]:
    found: list[Any] = session.sparkContext.parallelize(range(2), 2).mapPartitions(function).collect()
    return found


def test_workers_compute_with_one_thread_and_this_interpreter(session: SparkSession) -> None:
    def look(_: BATCHES) -> BATCHES:
        yield os.environ["OPENBLAS_NUM_THREADS"], sys.prefix

    assert in_workers(session, look) == [("1", sys.prefix)] * 2
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    assert "SPARK_HOME" not in os.environ


def test_error_of_ours_in_a_worker_keeps_class_and_text(session: SparkSession) -> None:
    text = "a.h5: layer 3\n\nTraceback of nothing: no /meta"

    def fail(_: BATCHES) -> BATCHES:
        try:
            raise OSError("cause")
        except OSError as error:
            raise SourceError(text) from error
        yield

    with pytest.raises(SourceError) as caught, explained():
        in_workers(session, fail)
    assert str(caught.value) == text
    with pytest.raises(SourceError) as caught, explained():
        session.range(0, 4, 1, 2).mapInArrow(fail, "id long").toArrow()
    assert str(caught.value) == text


def test_other_failure_of_a_worker_is_one_line(session: SparkSession) -> None:
    def fail(_: BATCHES) -> BATCHES:
        yield {}["nothing"]

    def crash(_: BATCHES) -> BATCHES:
        yield os._exit(9)

    with pytest.raises(EngineError, match=r"^a worker failed: KeyError: 'nothing'$"), explained():
        in_workers(session, fail)
    with pytest.raises(EngineError, match=r"^worker \S+ failed: Python worker .*; if memory ran out, .*$"), explained():
        in_workers(session, crash)


def test_spark_s_own_errors_are_one_line(session: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    for query in ("selec 1", "select x from nowhere", "select 1 / 0"):
        with pytest.raises(EngineError, match=r"^Spark failed: [^\n\t]+$"), explained():
            session.sql(query).collect()
    assert capfd.readouterr().err == ""


def test_errors_that_are_not_spark_s_are_left_as_they_are() -> None:
    assert explain(ValueError("a")) is None
    assert explain(OSError(28, "No space left on device")) is None
    with pytest.raises(KeyError), explained():
        raise KeyError("a")


def test_lines_of_java_are_told_from_its_stacks() -> None:
    log = (
        "WARNING: Using incubator modules\nPicked up JAVA_TOOL_OPTIONS: -Xint\n"
        "26/11/24 21:50:03 WARN Utils: Your hostname\n"
    )
    assert reason(log) == ""
    assert (
        reason(f"{log}Invalid maximum heap size: -Xmxa\nError: Could not create") == "Invalid maximum heap size: -Xmxa"
    )
    stack = "\tat org.apache.A.b(A.scala:1)\n"
    assert reason(f"{log}a.b.OuterException: x\n{stack}Caused by: c.InnerError: [A_B.C] y\nz SQLSTATE: 1\n{stack}") == (
        "InnerError: y z"
    )


def test_workers_that_see_everything_are_accepted(session: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"abc")
    check_workers(session, [tmp_path / "a.h5"])


OPEN_OTHER = (
    "import builtins\ntrue = builtins.open\n"
    "builtins.open = lambda path, *more, **named: true(str(path).replace('a.h5', '{}'), *more, **named)"
)
STORAGE = "put it on storage that all workers see under the same path"


@pytest.mark.parametrize(
    ("python", "told"),
    [
        (
            "import sys\nclass Version(tuple):\n    major, minor, micro, releaselevel, serial = 3, 9, 0, 'final', 0\n"
            "sys.version_info = Version((3, 9, 0, 'final', 0))",
            rf"the workers have Python 3\.9, and here is Python 3\.{sys.version_info.minor}; they must be the same: .*",
        ),
        (
            "import sys\nsys.modules['warehouse'] = None",
            rf"worker \S+ cannot import this package with \S+ \(.*\); there, too, run pip install .*=={__version__}'.*",
        ),
        (
            "import sys, types\nsys.modules['warehouse'] = types.ModuleType('warehouse')\n"
            "sys.modules['warehouse.version'] = version = types.ModuleType('version')\nversion.__version__ = '0.0'",
            rf"worker \S+ has version 0\.0 of this package, and here is {__version__}; there, too, run pip install .*",
        ),
        (
            OPEN_OTHER.format("c.h5"),
            rf"worker \S+ cannot read \S+a\.h5 \(No such file or directory\); {STORAGE}",
        ),
        (
            OPEN_OTHER.format("b.h5"),
            rf"worker \S+ sees another \S+a\.h5, of 5 bytes and not 3; {STORAGE}",
        ),
    ],
    ids=["python", "no package", "other package", "no file", "other file"],
)
def test_workers_that_differ_are_told(
    python: str, told: str, session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "sitecustomize.py").parent.mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(python, encoding="utf-8")
    other = executable(tmp_path / "python", f'PYTHONPATH="{tmp_path / "site"}:$PYTHONPATH" exec {sys.executable} "$@"')
    (tmp_path / "a.h5").write_bytes(b"abc")
    (tmp_path / "b.h5").write_bytes(b"abcde")
    monkeypatch.setattr(session.sparkContext, "pythonExec", str(other))
    with pytest.raises(EngineError) as caught:
        check_workers(session, [tmp_path / "a.h5"])
    assert re.fullmatch(told, str(caught.value))


def test_interpreter_that_workers_lack_is_told(session: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.sparkContext, "pythonExec", "/no/python")
    with (
        pytest.raises(EngineError, match=r'^worker \S+ failed: Cannot run program "/no/python": .*; name the .*$'),
        explained(),
    ):
        in_workers(session, iter)


def test_what_is_told_in_one_line_py4j_does_not_tell_in_pages(caplog: pytest.LogCaptureFixture) -> None:
    # a session of this module may have quieted it already
    caplog.set_level(logging.WARNING, logger="py4j")
    logger = logging.getLogger("py4j.clientserver")
    with engine._quiet():
        logger.error("a connection was lost")
    assert not caplog.records
    logger.error("another, of somebody else's session")
    assert len(caplog.records) == 1


INTERRUPTED = """
import signal, sys, time
from pyspark import SparkContext
from warehouse.on_spark.engine import started

def wait(rows):
    time.sleep(600)
    yield

try:
    with started("local[1]") as session:
        print(SparkContext._gateway.proc.pid, flush=True)
        JOB
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("interrupted")
"""


@pytest.mark.parametrize(
    "job",
    [
        "session.sparkContext.parallelize([0], 1).mapPartitions(wait).collect()",
        "session.range(0, 1, 1, 1).mapInArrow(wait, 'id long').toArrow()",
    ],
)
def test_ctrl_c_stops_the_job_and_java(job: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("JOB", job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    java = int(child.stdout.readline())
    time.sleep(5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(java, 0)


def told_elsewhere(body: str) -> str:
    """What ``body`` prints in a process of its own, which may start a session."""
    code = f"from tests.test_spark_engine import *\n{body}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def test_killed_java_is_told_and_another_session_can_be_started() -> None:
    body = (
        "try:\n"
        "    with started('local[1]') as session:\n"
        "        from pyspark import SparkContext\n"
        "        SparkContext._gateway.proc.kill()\n"
        "        session.range(3).count()\n"
        "except EngineError as error:\n"
        "    print(error)\n"
        "with started('local[1]') as session:\n"
        "    print(session.range(3).count())\n"
    )
    told, count = told_elsewhere(body).splitlines()
    assert told == "Spark's Java process has ended; if memory ran out, give it more: spark.driver.memory"
    assert count == "3"


def test_port_that_is_no_master_s_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        master = f"spark://127.0.0.1:{silent.getsockname()[1]}"
        told = told_elsewhere(f"print(refusal({master!r}, {{{WAIT!r}: '5s'}}))")
    assert told.startswith(f"{master} accepts no application within 5s; it is no Spark master, or not of Spark ")


def test_cluster_whose_workers_cannot_take_a_task_is_given_up(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        told = told_elsewhere(f"print(refusal({running.url!r}, {{'spark.executor.memory': '8g', {WAIT!r}: '15s'}}))")
    assert told.startswith(f"{running.url} has no worker for this within 15s: start workers, or ask for less ")
