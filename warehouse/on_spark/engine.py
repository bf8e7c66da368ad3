"""A Spark session for one command: what must be there is checked first, then it is started, and ended with the command.

Gets a master and settings; hands on the session. Whatever cannot be had is one line that says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any

from warehouse.errors import EngineError
from warehouse.on_spark.failures import INSTALL, explained, reason
from warehouse.patience import limited

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

OLDEST_SPARK = (4, 1)
OLDEST_JAVA = 17
GET_JAVA = f"install Java {OLDEST_JAVA} or 21 (on Debian: apt install default-jre-headless), or name it by JAVA_HOME"
REACH_SECONDS = 8.0
"""How long all masters together may take to accept a connection."""
WAIT = "spark.scheduler.maxRegisteredResourcesWaitingTime"
"""Spark's own name for how long to wait for workers; we wait for the master as long."""
DEFAULTS = {
    "spark.app.name": "warehouse",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
    WAIT: "30s",
    # as many tasks run at once as there are cores: each computes with one thread
    **{f"spark.executorEnv.{name}_NUM_THREADS": "1" for name in ("MKL", "OMP", "OPENBLAS", "NUMBA")},
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
}
LOCAL_DEFAULTS = {
    "spark.ui.enabled": "false",
    # so that it starts without a network, too, and nobody else can reach it
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
_LOCAL = re.compile(r"local(\[(\*|[1-9][0-9]*)(,[1-9][0-9]*)?\]|-cluster\[[0-9 ]+,[0-9 ]+,[0-9 ]+\])?")
_ADDRESS = re.compile(r"\[?([\w.:-]+?)\]?:(\d{1,5})")
_UNITS = {"ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@contextlib.contextmanager
def started(master: str | None = None, conf: Mapping[str, str] = MappingProxyType({})) -> Iterator[SparkSession]:
    """Run a Spark session while the context lasts; where the process has one already, that one, which is left running.

    Parameters
    ----------
    master
        ``local[2]``, ``spark://host:7077``, ``yarn`` ...; by default what Spark's own configuration says, and else all
        cores of this machine.
    conf
        Spark's settings by name; they override ours (``DEFAULTS``).

    Raises
    ------
    EngineError
        pyspark, Java, the master or its workers are missing or not fit, or Spark refuses a setting. What Spark raises
        in the context, too, becomes one line: see `explain`.
    """
    _require_pyspark()
    with _quiet():
        from pyspark import SparkContext
        from pyspark.sql import SparkSession

        running = SparkContext._active_spark_context
        if running is not None:
            _require_same_master(running.master, master)
            with explained():
                yield SparkSession.builder.getOrCreate()
            return
        settings = _settings(conf.get("spark.master") if master is None else master, conf)
        _require_spark_home()
        _require_java()
        if settings.get("spark.master", "").startswith("spark://"):
            _require_reachable(settings["spark.master"])
        with _session(settings) as session:
            if not _LOCAL.fullmatch(str(session.sparkContext.master)):
                _require_worker(session, settings[WAIT])
            yield session


def _require_pyspark() -> None:
    """Refuse where pyspark is missing or too old."""
    try:
        from pyspark import __version__
    except ImportError as error:
        raise EngineError(f"Spark needs the package pyspark; get it with: {INSTALL}") from error
    if tuple(map(int, __version__.split(".")[:2])) < OLDEST_SPARK:
        oldest = ".".join(map(str, OLDEST_SPARK))
        raise EngineError(f"pyspark {__version__} is too old, {oldest} is needed; get it with: {INSTALL}")


def _require_same_master(running: str | None, master: str | None) -> None:
    if master not in (None, running):
        raise EngineError(f"this process has a Spark session on {running} already; stop it, or name no other master")


def _settings(master: str | None, conf: Mapping[str, str]) -> dict[str, str]:
    """All settings of a session, ours and the user's."""
    for name in conf:
        if not re.fullmatch(r"spark\.[\w.-]+", name):
            raise EngineError(f"{name!r} is no setting of Spark, whose names begin with 'spark.'")
    if master is None:
        return DEFAULTS | LOCAL_DEFAULTS | dict(conf)
    _require_master(master)
    ours = DEFAULTS | LOCAL_DEFAULTS if _LOCAL.fullmatch(master) else DEFAULTS
    return ours | dict(conf) | {"spark.master": master}


def _require_master(master: str) -> None:
    """Refuse what is no address of a master."""
    if master.startswith("sc://"):
        raise EngineError(f"{master} is a Spark Connect server, which cannot run an ingest; name the cluster's master")
    if master.startswith("spark://"):
        _hosts(master)
    elif not (_LOCAL.fullmatch(master) or master == "yarn" or re.fullmatch(r"k8s://\S+", master)):
        raise EngineError(
            f"{master!r} is no Spark master; write local[2], local[*], spark://host:7077, yarn or k8s://..."
        )


def _hosts(master: str) -> list[tuple[str, int]]:
    """Hosts and ports of ``spark://a:1,b:2``."""
    parts = [_ADDRESS.fullmatch(part) for part in master.removeprefix("spark://").split(",")]
    hosts = [(part[1], int(part[2])) for part in parts if part]
    if len(hosts) < len(parts) or max(port for _, port in hosts) >= 2**16:
        raise EngineError(f"{master!r} is no Spark master; write spark://host:7077")
    return hosts


def _require_reachable(master: str) -> None:
    """Refuse a master that nobody answers for: Spark itself would try for a minute."""
    hosts = _hosts(master)
    failures = []
    for host, port in hosts:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS / len(hosts)).close()
        except OSError as error:
            failures.append(f"{host}:{port}: {error.strerror or error}")
        else:
            return
    raise EngineError(
        f"no Spark master answers at {master} ({'; '.join(failures)}); start it, or correct host and port: "
        "the master's own page, by default on port 8080, tells its address"
    )


def _require_java() -> None:
    """Refuse where the Java that Spark would start is missing, broken or too old."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise EngineError(f"Spark needs Java, and there is none; {GET_JAVA}")
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    except OSError as error:
        named = f"JAVA_HOME is {home}, but {java}" if home else java
        raise EngineError(f"Spark needs Java, and {named} cannot be run ({error.strerror}); {GET_JAVA}") from error
    # 1.8.0_392 was version 8
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if done.returncode or not version:
        told = reason(done.stderr) or f"exit status {done.returncode}"
        raise EngineError(f"Spark needs Java, and {java} does not tell its version ({told}); {GET_JAVA}")
    if int(version[1]) < OLDEST_JAVA:
        raise EngineError(f"Spark needs Java {OLDEST_JAVA} or newer, and {java} is version {version[1]}; {GET_JAVA}")


def _require_spark_home() -> None:
    """Refuse a ``SPARK_HOME`` that is not the Spark of pyspark's version."""
    from pyspark import __version__

    home = os.environ.get("SPARK_HOME")
    if home and not list(Path(home, "jars").glob(f"spark-core_*-{__version__}.jar")):
        raise EngineError(f"SPARK_HOME is {home}, which is not Spark {__version__} as pyspark is; unset SPARK_HOME")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what pyspark itself would write: of a newer pandas, which we do not use, of errors that are explained."""
    from pyspark.logger import PySparkLogger

    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)
    # Py4J tells of a lost Java process, and of a call that Ctrl-C cut short, in its own name and in everybody's
    py4j = logging.getLogger("py4j")
    level = py4j.level
    py4j.setLevel(logging.CRITICAL + 1)
    logging.root.addFilter(_is_not_py4j)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
            warnings.filterwarnings("ignore", "Unable to cleanly shutdown Spark JVM process", RuntimeWarning)
            yield
    finally:
        logging.root.removeFilter(_is_not_py4j)
        py4j.setLevel(level)


def _is_not_py4j(record: logging.LogRecord) -> bool:
    return Path(record.pathname).parent.name != "py4j"


@contextlib.contextmanager
def _session(settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """Start Spark's Java process and a session in it, and end both."""
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    with contextlib.ExitStack() as undo:
        with _environment(settings):
            gateway = undo.enter_context(_java(conf))
            # before Java ends, which has the texts of its errors
            undo.enter_context(explained())
            handler = signal.getsignal(signal.SIGINT)
            context = _context(conf, gateway, settings[WAIT])
            undo.callback(context.stop)
            undo.enter_context(_cancelling(context, handler))
        session = SparkSession.builder.getOrCreate()
        undo.callback(_stop, session)
        # only now does Spark look at the settings of its SQL
        session.conf.get("spark.app.name")
        yield session


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Variables that only count while Spark is started: where it lies, and the interpreter of its workers."""
    import pyspark

    python = settings.get("spark.pyspark.python") or os.environ.get("PYSPARK_PYTHON") or sys.executable
    home = os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    before = {name: os.environ.get(name) for name in ("PYSPARK_PYTHON", "SPARK_HOME")}
    os.environ.update(PYSPARK_PYTHON=python, SPARK_HOME=home)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _java(conf: SparkConf) -> Iterator[JavaGateway]:
    """Spark's Java process, while the context lasts: the next session can have other settings of it."""
    from pyspark import SparkContext
    from pyspark.java_gateway import launch_gateway

    # what Java writes is for whoever mends Spark: here it is only asked why the process ended
    with tempfile.TemporaryFile() as log:
        try:
            gateway = launch_gateway(conf, {"stdout": log, "stderr": log})
        except Exception as error:
            log.seek(0)
            said = reason(log.read().decode(errors="replace")) or reason(str(error))
            raise EngineError(f"Spark cannot be started: {said}") from error
        try:
            yield gateway
        finally:
            # `spark-submit` has one of its own
            if gateway.proc is not None:
                gateway.shutdown()
                gateway.proc.stdin.close()
                gateway.proc.wait()
                SparkContext._gateway = SparkContext._jvm = None


def _context(conf: SparkConf, gateway: JavaGateway, wait: str) -> SparkContext:
    """Connect to the master: Spark itself would try for a minute."""
    from pyspark import SparkContext, __version__

    master = conf.get("spark.master")
    if master is None or _LOCAL.fullmatch(master) or gateway.proc is None:
        return SparkContext(conf=conf, gateway=gateway)
    complaint = f"{master} accepts no application within {wait}; it is no Spark master, or not of Spark {__version__}"
    with _at_most(wait, gateway.proc.kill, complaint):
        return SparkContext(conf=conf, gateway=gateway)


def _require_worker(session: SparkSession, wait: str) -> None:
    """Have a worker do a task: Spark itself would wait for ever."""
    context = session.sparkContext
    complaint = (
        f"{context.master} has no worker for this within {wait}: start workers, or ask for less "
        "(spark.executor.memory, spark.executor.cores), or see whether they reach this machine (spark.driver.host), "
        f"or wait longer ({WAIT})"
    )
    with _at_most(wait, context.cancelAllJobs, complaint):
        session.range(1).count()


@contextlib.contextmanager
def _at_most(wait: str, give_up: Callable[[], object], complaint: str) -> Iterator[None]:
    """Give up what the context waits for after a time, with a complaint."""
    with limited(_seconds(wait), give_up) as late:
        try:
            yield
        except Exception as error:
            if late.is_set():
                raise EngineError(complaint) from error
            raise


def _seconds(duration: str) -> float:
    """Seconds of a duration as Spark's settings have it: ``30s``, ``5min``."""
    parts = re.fullmatch(r"(\d+) *(ms|s|m|min|h|d)", duration.strip())
    if not parts:
        raise EngineError(f"{WAIT}={duration} is no duration; write 30s or 5min")
    return int(parts[1]) * _UNITS[parts[2]]


def _stop(session: SparkSession) -> None:
    from py4j.protocol import Py4JError

    # a Java process that was killed cannot be asked; what is Python's is stopped by the context
    with contextlib.suppress(Py4JError, OSError):
        session.stop()


@contextlib.contextmanager
def _cancelling(context: SparkContext, handler: Any) -> Iterator[None]:
    """Have Ctrl-C cancel Spark's jobs, whose end pyspark waits for, and then do what it did before (``handler``).

    Spark's own way calls Java within a call of Java, which fails now and then, and stays when the session has ended.
    """

    def cancel() -> None:
        # there may be no Java any more
        with contextlib.suppress(Exception):
            context.cancelAllJobs()

    def interrupt(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=cancel, daemon=True).start()
        handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt if callable(handler) else handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
