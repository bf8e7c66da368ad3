"""Vectorised functions for SQL: what plain SQL does slowly or not at all.

`UDFS` describes them, `register` makes them callable on a DuckDB connection. They live as long as the
database instance and are not stored in its file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import duckdb
import pyarrow as pa

from udfs.distances import jensen_shannon, kolmogorov_smirnov, wasserstein
from udfs.embedding import classical_mds
from udfs.linear_algebra import eigh, orthogonality, sparsity, variance_entropy

__all__ = ["UDFS", "Udf", "register"]


@dataclass(frozen=True)
class Udf:
    """A scalar function for SQL.

    Attributes
    ----------
    name
        Its name in SQL.
    purpose
        What it computes and when the result is NULL; one line.
    parameters
        ``name: meaning`` of each argument, separated by ``; ``.
    example
        An SQL expression that calls it.
    argument_types, return_type
        DuckDB types.
    function
        Maps one Arrow column an argument to a column of results; raises `ValueError` for bad arguments.
    """

    name: str
    purpose: str
    parameters: str
    example: str
    argument_types: tuple[str, ...]
    return_type: str
    function: Callable[..., pa.Array]


UDFS = (
    Udf(
        name="eigh",
        purpose=(
            "Eigenvalues, falling, and eigenvectors, one a list, of a symmetric matrix. "
            "The entry of a vector with the largest magnitude is positive. NULL for an empty list."
        ),
        parameters=(
            "matrix: the packed upper triangle row by row, k(k+1)/2 numbers (45 for 9x9); "
            "the full matrix is not accepted"
        ),
        example="eigh([2.0, 1.0, 2.0])",
        argument_types=("DOUBLE[]",),
        return_type="STRUCT(eigenvalues DOUBLE[], eigenvectors DOUBLE[][])",
        function=eigh,
    ),
    Udf(
        name="variance_entropy_udf",
        purpose=(
            "Entropy (log10, 0 to 0.9542) of the eigenvalues of the covariance of a layer's filters; "
            "0 without variance. NULL for fewer than 2 filters."
        ),
        parameters="weights: the n filters row by row, 9 n numbers",
        example="variance_entropy_udf([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])",
        argument_types=("DOUBLE[]",),
        return_type="DOUBLE",
        function=variance_entropy,
    ),
    Udf(
        name="orthogonality_udf",
        purpose=(
            "1 - sum|W W^T - I| / (m (m - 1)): 1 if the m output channels of a layer are pairwise "
            "orthogonal. NULL for m = 1 and for an empty list."
        ),
        parameters=(
            "weights: the filters row by row, those of an output channel together; "
            "out_channels: m, 9 m divides the number of weights"
        ),
        example="orthogonality_udf([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 2)",
        argument_types=("DOUBLE[]", "INTEGER"),
        return_type="DOUBLE",
        function=orthogonality,
    ),
    Udf(
        name="sparsity_udf",
        purpose=(
            "Share of the filters of a layer whose peak is below eps times the largest peak; "
            "1 for a layer of zeros. NULL for an empty list."
        ),
        parameters=("weights: the n filters row by row, 9 n numbers; eps: a share of the largest peak, usually 0.01"),
        example="sparsity_udf([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.001, 0, 0, 0, 0, 0, 0, 0], 0.01)",
        argument_types=("DOUBLE[]", "DOUBLE"),
        return_type="DOUBLE",
        function=sparsity,
    ),
    Udf(
        name="wasserstein",
        purpose=(
            "Wasserstein-1 distance of two histograms over the same bins, in the unit of width. "
            "NULL if a histogram is empty or sums to 0."
        ),
        parameters="p: histogram; q: histogram of as many bins; width: width of a bin, above 0",
        example="wasserstein([1, 0, 0], [0, 0, 1], 0.5)",
        argument_types=("DOUBLE[]", "DOUBLE[]", "DOUBLE"),
        return_type="DOUBLE",
        function=wasserstein,
    ),
    Udf(
        name="jensen_shannon",
        purpose=(
            "Jensen-Shannon divergence of two histograms, natural logarithm, 0 to ln 2; "
            "its square root is the distance. NULL if a histogram is empty or sums to 0."
        ),
        parameters="p: histogram; q: histogram of as many bins",
        example="jensen_shannon([1, 0, 0], [0, 0, 1])",
        argument_types=("DOUBLE[]", "DOUBLE[]"),
        return_type="DOUBLE",
        function=jensen_shannon,
    ),
    Udf(
        name="kolmogorov_smirnov",
        purpose=(
            "Largest difference of the cumulative distributions of two histograms over the same bins, "
            "0 to 1. NULL if a histogram is empty or sums to 0."
        ),
        parameters="p: histogram; q: histogram of as many bins",
        example="kolmogorov_smirnov([1, 0, 0], [0, 0, 1])",
        argument_types=("DOUBLE[]", "DOUBLE[]"),
        return_type="DOUBLE",
        function=kolmogorov_smirnov,
    ),
    Udf(
        name="classical_mds",
        purpose=(
            "Classical multidimensional scaling: coordinates of n points, one list a point, whose distances come as "
            "near to the given ones as so few axes allow, and held_share, the share of the positive eigenvalues that "
            "these axes hold. Axes by falling eigenvalue; the largest magnitude on each is positive. held_share is "
            "NULL where all points are the same."
        ),
        parameters=(
            "distances: the packed upper triangle without the diagonal, row by row, n(n-1)/2 numbers of 0 or more, an "
            "empty list for a single point; dimensions: coordinates of a point, 1 or more"
        ),
        example="classical_mds([3.0, 4.0, 5.0], 2)",
        argument_types=("DOUBLE[]", "INTEGER"),
        return_type="STRUCT(coordinates DOUBLE[][], held_share DOUBLE)",
        function=classical_mds,
    ),
)


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `UDFS` callable on a connection and on every other one to the same database instance.

    A name that already is a function or macro there is left as it is, so registering twice does no harm.
    """
    names = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    taken = {name for (name,) in names}
    for udf in UDFS:
        if udf.name not in taken:
            # texts, which every version takes: the enumerations that the stubs ask for have moved between versions
            connection.create_function(  # type: ignore[call-overload]
                udf.name,
                _with_name_in_errors(udf),
                list(udf.argument_types),
                udf.return_type,
                type="arrow",
                null_handling="special",
            )


def _with_name_in_errors(udf: Udf) -> Callable[..., pa.Array]:
    # DuckDB reports the type and the text of an exception, but not which function raised it.
    @wraps(udf.function)
    def function(*columns: pa.ChunkedArray) -> pa.Array:
        try:
            return udf.function(*columns)
        except ValueError as error:
            raise ValueError(f"{udf.name}: {error}") from error

    return function
