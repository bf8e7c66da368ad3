"""What a worker of Spark's does: applies a stage's function to the pieces of a task."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from warehouse import codec
from warehouse.errors import WarehouseError, system_error_number
from warehouse.source import close_reopened

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator

RESULTS = pa.schema(
    {"index": pa.int64(), "value": pa.binary(), "error": pa.string(), "message": pa.string(), "number": pa.int32()}
)
"""A row a piece: its result, or the class, text and system error number of what went wrong."""


def apply(todo: bytes, counted: Accumulator[int] | None, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """In a worker: the results of the pieces that a task has the numbers of."""
    from pyspark import cloudpickle

    told = {} if counted is None else {"done": counted.add}
    unpacked: tuple[Callable[..., Any], Sequence[Any]] | None = None
    try:
        for index in itertools.chain.from_iterable(batch["id"].to_pylist() for batch in batches):
            row = {"index": index, "value": b"", "error": "", "message": "", "number": 0}
            try:
                work, pieces = unpacked = unpacked or cloudpickle.loads(todo)
                # as many tasks run at once as there are cores
                with threadpool_limits(limits=1, user_api="blas"):
                    row["value"] = codec.encode(work(*pieces[index], **told))
            except WarehouseError as error:
                # as a result, as Spark would try again what fails for good
                row |= {"error": type(error).__name__, "message": str(error), "number": system_error_number(error)}
            yield pa.RecordBatch.from_pylist([row], RESULTS)
    finally:
        # this process lives on when the ingest has ended
        close_reopened()
