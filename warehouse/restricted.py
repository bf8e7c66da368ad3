"""A warehouse for queries that a stranger wrote: they run in a process of their own, within limits that hold.

Gets the folder of a warehouse and `Limits`; hands on DuckDB relations over finished results. What the process may do is
in `warehouse.sandbox`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from warehouse import errors, patience
from warehouse.connection import connect
from warehouse.errors import QueryError, duckdb_message

KEPT_VARIABLES = ("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH", "PATH", "TZ")
"""What the process sees of the environment, which may hold passwords and keys."""
OWN_VARIABLES = {
    # NumPy's, in the functions that Python adds
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # or else these reserve 1 GB of addresses, which the kernel counts as memory
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""What is set for the process."""
MOST = 10**9
"""Of every limit: more is a mistake, and some systems' counters end there."""


@dataclass(frozen=True)
class Limits:
    """What one query may take.

    Attributes
    ----------
    seconds
        From the question to its complete result, by the clock.
    memory_mb
        Memory beyond what the process needs when idle; DuckDB gets three quarters of it, nothing is spilled to disk.
        The kernel enforces it on Linux; on macOS only DuckDB counts, and not all that it takes.
    threads
        Of DuckDB.
    rows, result_mb
        Of the result, as Arrow has it; Python objects take several times as much.

    Raises
    ------
    QueryError
        A limit that is not above 0, or above a billion.
    """

    seconds: float = 10
    memory_mb: int = 1024
    threads: int = 2
    rows: int = 1_000_000
    result_mb: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value <= MOST:
                raise QueryError(f"limit {name} is {value}, expected a number above 0, at most {MOST:,}")

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Limits:
        """Limits by name, as the command line has them; those not named keep their defaults."""
        kinds: dict[str, type[int] | type[float]] = {field.name: int for field in fields(cls)}
        kinds["seconds"] = float
        values: dict[str, Any] = {}
        for name, text in texts.items():
            if name not in kinds:
                raise QueryError(f"there is no limit {name!r}; there are {', '.join(kinds)}")
            try:
                values[name] = kinds[name](text)
            except ValueError:
                raise QueryError(f"limit {name} is {text!r}, expected a number above 0") from None
        return cls(**values)


class RestrictedWarehouse:
    """A warehouse, open for queries that a stranger wrote.

    A query may read this warehouse, and do nothing else. It is one statement that reads (SELECT, FROM, WITH, VALUES,
    DESCRIBE, SUMMARIZE, SHOW) and runs in a process without this one's environment, in a DuckDB that is opened for it
    alone, so that nothing which it leaves behind reaches the next. There no file but the database and the committed
    filters can be opened, none written, no database attached, no extension loaded and no setting changed; whoever
    takes too much time or memory is ended with the process. There are no ``scan``, ``add`` and ``compare``, and no
    ``query`` function, which runs a text. It may be used from several threads, which take turns.

    It does not protect from errors in DuckDB, Arrow or Python that let a query take over the process, which runs as
    the same user: put that into a container without network. On macOS, and on Linux before 5.13, only the look at the
    query keeps DuckDB from writing to the files of the warehouse itself, which it must be able to read: there, give the
    process no right to write them. The warehouse is trusted: its own views and macros read what they name. Nor does
    it hide anything: a query sees all of the warehouse, DuckDB's settings and the folder's path. And every query may
    use its ``threads`` for its ``seconds``, as often as somebody asks: who may ask how often is up to the server.

    Parameters
    ----------
    path
        The warehouse's folder.
    limits
        Of each query.

    Attributes
    ----------
    path
        Its folder.
    limits
        Of each query.

    Raises
    ------
    LakeError
        No warehouse is there, or it cannot be opened.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = limits or Limits()
        # the working directory may change before the process is started again
        self._folder = self.path.absolute()
        self._local = threading.local()
        self._turn = threading.Lock()
        self._closed = False
        self._owner = os.getpid()
        self._start()

    def __enter__(self) -> RestrictedWarehouse:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.limits})"

    def close(self) -> None:
        """End the process, with the query that it may be running."""
        if os.getpid() != self._owner:
            return
        self._closed = True
        # whoever waits for an answer in another thread is told, and lets go of the process
        self._process.kill()
        with self._turn:
            self._end()

    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Ask a question in SQL, written by anyone.

        Parameters
        ----------
        query
            One statement that reads.
        params
            Values for ``?`` or ``$name`` in the query: numbers, texts, truth values, None, and lists of them.

        Returns
        -------
        A relation over the finished result: what is done with it is no longer the stranger's query.

        Raises
        ------
        QueryError
            DuckDB's message, or the limit that was reached.
        """
        return self._ask("sql", query, params)

    def analysis(self, name: str, /, **settings: Any) -> duckdb.DuckDBPyRelation:
        """Run one of the analyses that ``from analyses`` lists, with settings that anyone chose.

        Parameters
        ----------
        name, settings
            As in `Warehouse.analysis`.

        Raises
        ------
        QueryError
            As there, or the limit that was reached.
        """
        return self._ask("analysis", name, settings)

    def _ask(self, call: str, *arguments: object) -> duckdb.DuckDBPyRelation:
        """Have the process answer, and end it unless it did."""
        if os.getpid() != self._owner:
            raise QueryError(f"{self.path} was opened before this process was forked; open it again here")
        try:
            request = json.dumps([call, *arguments], default=_plain).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise QueryError(f"cannot pass on a parameter: {error}; use numbers, texts and lists of them") from error
        with self._turn:
            if self._closed:
                raise QueryError(f"{self.path} is closed")
            if self._process.poll() is not None:
                self._start()
            try:
                head, body = self._exchange(request)
                if head["spent"]:
                    self._end()
            except BaseException:
                self._end()
                raise
        if "error" in head:
            raise getattr(errors, head["error"])(head["message"])
        try:
            return self._results().from_arrow(pa.ipc.open_stream(body).read_all())
        except (pa.ArrowException, duckdb.Error) as error:
            raise QueryError(f"cannot pass on the result: {duckdb_message(error)}; cast its columns") from error

    def _results(self) -> duckdb.DuckDBPyConnection:
        """The connection of the results of this thread, for one serves a thread at a time."""
        if not hasattr(self._local, "results"):
            self._local.results = duckdb.connect()
        results: duckdb.DuckDBPyConnection = self._local.results
        return results

    def _exchange(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request; what the process tells of the answer, and the answer as an Arrow stream."""
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None  # noqa: S101 - both are pipes
        assert answers is not None  # noqa: S101
        with patience.limited(self.limits.seconds + patience.SECONDS, self._process.kill) as late:
            try:
                questions.write(request + b"\n")
                questions.flush()
                line = answers.readline()
                if not line.endswith(b"\n"):
                    raise EOFError
                head = json.loads(line)
                body = answers.read(head["bytes"])
                if len(body) < head["bytes"]:
                    raise EOFError
            except (EOFError, BrokenPipeError):
                status = self._process.wait()
                raise QueryError(self._obituary(status, late=late.is_set())) from None
        return head, body

    def _obituary(self, status: int, *, late: bool) -> str:
        """Why the process ended while it had a question to answer."""
        if self._closed:
            return f"{self.path} was closed while the query ran"
        if late or status == -signal.SIGALRM:
            return f"the query took longer than {self.limits.seconds:g} s and was ended; ask for less"
        return (
            f"the query ended its process (status {status}): it may need more memory than "
            f"{self.limits.memory_mb:,} MB, nest too deeply, or meet an error of DuckDB; ask for less"
        )

    def _start(self) -> None:
        """Start the process, which ends with this object at the latest.

        Raises
        ------
        LakeError
            No warehouse is there, or it cannot be opened.
        """
        connect(self._folder).close()
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        # the last one, for an empty entry is the working directory, which may have been another at our own import
        imports = [*filter(None, sys.path), str(Path(__file__).parents[1])]
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in imports)
        environment |= OWN_VARIABLES
        # -P: no module is taken from the working directory
        command = [sys.executable, "-P", "-m", "warehouse.sandbox", str(self._folder), json.dumps(asdict(self.limits))]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            # of its own session, so that Ctrl-C reaches this process alone
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process, self._owner)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End a process, unless it belongs to the one of which this is a fork."""
    if os.getpid() == owner:
        process.kill()
        process.communicate()


def _plain(value: object) -> object:
    """A NumPy number as a plain one, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")
