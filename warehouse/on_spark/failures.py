"""Why Spark or its workers cannot do their work: asked before they do, and read out of what Spark raises.

Gets a session, or pages of Java's and Python's stacks; hands on one line with what is to be done.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse import errors
from warehouse.errors import EngineError, WarehouseError
from warehouse.version import __version__

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INSTALL = "pip install 'cnn-filter-warehouse[spark]'"
OTHER_PYTHON = "--conf spark.pyspark.python=PATH"
_REPAIR = (
    f"there, too, run pip install 'cnn-filter-warehouse[spark]=={__version__}', "
    f"or name an interpreter that has it: {OTHER_PYTHON}"
)
LONGEST = 400
"""Characters of a message of Spark's that are worth showing."""

_JAVA_ERROR = re.compile(
    r"^(?:: |.*?Caused by: |Exception in thread \"[^\"]*\" )?(?:\w+\.)+(\w+: .*?)(?=\n\s*at |\n\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_LOST_TASK = re.compile(
    r"Lost task \S+ in stage \S+ \(TID \d+\) \((\S+) executor \S+\): (.*?)(?=\n\s*at |\n\n|\Z)", re.DOTALL
)
_TRACEBACK = re.compile(
    r"^(?P<indent> *)Traceback \(most recent call last\):\n"
    r"(?:(?P=indent) +[^\n]*\n)*"
    r"(?P=indent)(?P<kind>[\w.]+)(?:: (?P<message>.*?))?"
    r"(?=\n *SQLSTATE|\n\s+at |\nPYTHONPATH was:|\n\n(?:Driver|JVM) stacktrace|\n\n *(?:During|The above)|\s*\Z)",
    re.MULTILINE | re.DOTALL,
)
_NOISE = re.compile(r"\s*$|WARNING:|NOTE:|Picked up |Using Spark's|Setting |To adjust|[\d/]+ [\d:]+ (WARN|INFO) ")
_PYTHONS = re.compile(r"worker has different version:? (\S+) than that in driver:? ([\d.]+\d)")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what Spark raises in the context into one line: see `explain`."""
    try:
        yield
    except Exception as error:
        if _was_interrupted(error):
            raise KeyboardInterrupt from error
        told = explain(error)
        if told is None:
            raise
        raise told from error


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies behind an error: cut off within a result, Spark goes on to complain of a broken pipe."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def explain(error: Exception) -> WarehouseError | None:
    """The one line that an exception of pyspark or Py4J comes down to, or None for any other exception.

    Returns
    -------
    The same error with the same text where a worker raised a `WarehouseError`, and else an `EngineError`.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    if isinstance(error, (ConnectionError, Py4JError)) and not hasattr(error, "java_exception"):
        return EngineError("Spark's Java process has ended; if memory ran out, give it more: spark.driver.memory")
    if not isinstance(error, (Py4JError, PySparkException)):
        return None
    text = str(error)
    raised = list(_TRACEBACK.finditer(text))
    if raised:
        return _of_worker(raised[-1]["kind"], (raised[-1]["message"] or "").strip())
    lost = _LOST_TASK.findall(text)
    if lost:
        host, why = lost[-1]
        return EngineError(_with_remedy(f"worker {host} failed: {_shortened(why)}"))
    return EngineError(_with_remedy(f"Spark failed: {reason(text)}"))


def _of_worker(kind: str, message: str) -> WarehouseError:
    """The error for an exception of Python in a worker."""
    module, _, name = kind.rpartition(".")
    own = getattr(errors, name, None) if module == errors.__name__ else None
    if isinstance(own, type) and issubclass(own, WarehouseError):
        return own(message)
    differ = _PYTHONS.search(message)
    if differ:
        return EngineError(
            f"the workers have Python {differ[1]}, and here is Python {differ[2]}; they must be the same: "
            f"name the workers' interpreter by {OTHER_PYTHON}, or run this with theirs"
        )
    if name in ("ModuleNotFoundError", "ImportError"):
        return EngineError(f"the workers' Python lacks something: {message}; {_REPAIR}")
    return EngineError(_with_remedy(f"a worker failed: {_shortened(f'{name}: {message}')}"))


def _with_remedy(complaint: str) -> str:
    """A complaint with what can be done about it, where that is known."""
    if re.search(r"Cannot run program|pyspark\.daemon", complaint):
        return f"{complaint}; name the workers' Python by {OTHER_PYTHON}"
    if re.search(r"crashed|ExecutorLostFailure|OutOfMemory|MemoryError", complaint):
        return (
            f"{complaint}; if memory ran out, give the workers more (spark.executor.memory, "
            "spark.executor.memoryOverhead), or let fewer tasks share it (spark.executor.cores)"
        )
    return complaint


def reason(text: str) -> str:
    """The innermost message in a stack or a log of Java's, on one line; empty if there is none."""
    found = _JAVA_ERROR.findall(text) or [line for line in text.splitlines() if not _NOISE.match(line)][:1]
    return _shortened(found[-1]) if found else ""


def _shortened(message: str) -> str:
    """A message of Spark's on one line, without its class of errors and its SQL state."""
    line = re.sub(r"\[[A-Z_.]+\] |\bSQLSTATE: \w+", "", " ".join(message.split()))
    line = re.sub(r"^(?:(?:\w+\.)*(?:Spark|IO)Exception: )+| Consider setting 'spark\..*", "", line).rstrip(" .:")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def check_workers(session: SparkSession, files: Sequence[Path]) -> None:
    """Make sure that workers have this package, and see the same files as this process.

    Parameters
    ----------
    session
        One task for each of its cores is run.
    files
        Absolute paths that they must be able to read, with the same sizes as here.

    Raises
    ------
    EngineError
        The first difference, with the worker's host.
    """
    context = session.sparkContext
    n_tasks = context.defaultParallelism
    with explained():
        look = _looking([str(file) for file in files])
        seen = context.parallelize(range(n_tasks), n_tasks).mapPartitions(look).collect()
    sizes = {str(file): file.stat().st_size for file in files}
    for sight in seen:
        for complaint in _complaints(sight, sizes):
            raise EngineError(f"worker {sight['host']} {complaint}")


def _looking(files: list[str]) -> Callable[[Iterable[int]], Iterator[dict[str, Any]]]:
    """The function that looks around on a worker.

    Made here, it travels as a whole: the worker may have no such package to import it from.
    """

    def look(_: Iterable[int]) -> Iterator[dict[str, Any]]:
        import os
        import socket
        import sys

        def size(path: str) -> int | str | None:
            try:
                with open(path, "rb") as file:  # noqa: PTH123 - needs no more than what is imported here
                    return file.seek(0, os.SEEK_END)
            except OSError as error:
                return error.strerror

        version = missing = ""
        try:
            from warehouse.version import __version__ as version
        except ImportError as error:
            missing = str(error)
        yield {
            "host": socket.gethostname(),
            "python": sys.executable,
            "version": version,
            "missing": missing,
            "sizes": {path: size(path) for path in files},
        }

    return look


def _complaints(sight: dict[str, Any], sizes: dict[str, int]) -> Iterator[str]:
    """What a worker lacks, going by what it has seen."""
    storage = "put it on storage that all workers see under the same path"
    if sight["missing"]:
        yield f"cannot import this package with {sight['python']} ({sight['missing']}); {_REPAIR}"
    elif sight["version"] != __version__:
        yield f"has version {sight['version']} of this package, and here is {__version__}; {_REPAIR}"
    for path, size in sizes.items():
        found = sight["sizes"][path]
        if isinstance(found, str):
            yield f"cannot read {path} ({found}); {storage}"
        elif found != size:
            yield f"sees another {path}, of {found:,} bytes and not {size:,}; {storage}"
