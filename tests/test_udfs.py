"""The functions for SQL, called through DuckDB and compared with SciPy, NumPy and plain loops."""

import inspect
import math
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial import distance

import udfs
from udfs.arrays import BLOCK_VALUES, Lists, equal_rows

BATCH_ROWS = 2048
ZERO_FILTER = [0.0] * 9


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        udfs.register(connection)
        yield connection


def select(connection: duckdb.DuckDBPyConnection, expressions: str) -> tuple:
    (row,) = connection.execute(f"SELECT {expressions}").fetchall()
    return row


def as_arrow(name: str, *columns: Sequence) -> tuple[udfs.Udf, list[pa.ChunkedArray]]:
    (udf,) = [udf for udf in udfs.UDFS if udf.name == name]
    types = {"DOUBLE[]": pa.list_(pa.float64()), "DOUBLE": pa.float64(), "INTEGER": pa.int32()}
    kinds = [types[kind] for kind in udf.argument_types]
    return udf, [pa.chunked_array([list(c)], kind) for c, kind in zip(columns, kinds, strict=True)]


def call(connection: duckdb.DuckDBPyConnection, name: str, *columns: Sequence) -> list:
    """Evaluate a UDF over a table with one column an argument, in the order of its rows."""
    arguments = [f"c{index}" for index in range(len(columns))]
    table = pa.table(as_arrow(name, *columns)[1], names=arguments)
    relation = connection.from_arrow(table).project(f"{name}({', '.join(arguments)})")
    return [value for (value,) in relation.fetchall()]


def call_directly(name: str, *columns: Sequence) -> list:
    """Evaluate a UDF without a database, which is what hypothesis has time for."""
    udf, arguments = as_arrow(name, *columns)
    return udf.function(*arguments).to_pylist()


def packed(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix))]


def random_symmetric(rng: np.random.Generator, order: int) -> np.ndarray:
    matrix = rng.normal(size=(order, order))
    return matrix + matrix.T


def naive_entropy(filters: np.ndarray) -> float:
    eigenvalues = np.linalg.eigvalsh(np.cov(filters.T)).clip(min=0)
    return float(stats.entropy(eigenvalues, base=10))


def naive_orthogonality(weights: np.ndarray, out_channels: int) -> float:
    rows = weights.reshape(out_channels, -1)
    total = 0.0
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            norms = (np.linalg.norm(a) or 1) * (np.linalg.norm(b) or 1)
            total += abs(a @ b / norms - (i == j))
    return 1 - total / (out_channels * (out_channels - 1))


def scipy_wasserstein(p: np.ndarray, q: np.ndarray, width: float) -> float:
    positions = np.arange(len(p)) * width
    return float(stats.wasserstein_distance(positions, positions, p, q))


class TestCatalogue:
    @pytest.mark.parametrize("udf", udfs.UDFS, ids=lambda udf: udf.name)
    def test_describes_every_argument(self, udf: udfs.Udf) -> None:
        described = [part.split(":")[0] for part in udf.parameters.split("; ") if ":" in part]
        assert described == list(inspect.signature(udf.function).parameters)
        assert len(described) == len(udf.argument_types)

    @pytest.mark.parametrize("udf", udfs.UDFS, ids=lambda udf: udf.name)
    def test_example_gives_a_result_of_the_return_type(
        self, connection: duckdb.DuckDBPyConnection, udf: udfs.Udf
    ) -> None:
        value, kind = select(connection, f"{udf.example}, typeof({udf.example})")
        assert value is not None
        assert kind == udf.return_type

    @pytest.mark.parametrize("udf", udfs.UDFS, ids=lambda udf: udf.name)
    def test_null_in_any_argument_gives_null(self, connection: duckdb.DuckDBPyConnection, udf: udfs.Udf) -> None:
        values = {"DOUBLE[]": "range(18)::DOUBLE[]", "DOUBLE": "0.5", "INTEGER": "2"}
        if udf.name in ("eigh", "classical_mds"):
            values["DOUBLE[]"] = "[1.0]"
        values = [values[kind] for kind in udf.argument_types]
        for index, kind in enumerate(udf.argument_types):
            arguments = [*values[:index], f"NULL::{kind}", *values[index + 1 :]]
            assert select(connection, f"{udf.name}({', '.join(arguments)})") == (None,)

    @pytest.mark.parametrize("udf", [udf for udf in udfs.UDFS if udf.name != "classical_mds"], ids=lambda udf: udf.name)
    def test_empty_lists_give_null(self, connection: duckdb.DuckDBPyConnection, udf: udfs.Udf) -> None:
        values = {"DOUBLE[]": "[]", "DOUBLE": "0.5", "INTEGER": "2"}
        arguments = ", ".join(values[kind] for kind in udf.argument_types)
        assert select(connection, f"{udf.name}({arguments})") == (None,)

    @pytest.mark.parametrize("udf", udfs.UDFS, ids=lambda udf: udf.name)
    def test_no_rows_give_no_rows(self, connection: duckdb.DuckDBPyConnection, udf: udfs.Udf) -> None:
        assert call(connection, udf.name, *[[] for _ in udf.argument_types]) == []

    @pytest.mark.parametrize("udf", udfs.UDFS, ids=lambda udf: udf.name)
    @pytest.mark.parametrize(
        ("entry", "found"),
        [("NULL", "a NULL"), ("'nan'::DOUBLE", "a NaN"), ("'inf'::DOUBLE", "a NaN or an inf")],
    )
    def test_entries_must_be_finite_numbers(
        self, connection: duckdb.DuckDBPyConnection, udf: udfs.Udf, entry: str, found: str
    ) -> None:
        values = {"DOUBLE[]": f"[1, {entry}, 3]::DOUBLE[]", "DOUBLE": "0.5", "INTEGER": "2"}
        arguments = ", ".join(values[kind] for kind in udf.argument_types)
        with pytest.raises(duckdb.InvalidInputException, match=f"{udf.name}: a list of .* holds {found}"):
            select(connection, f"{udf.name}({arguments})")


class TestRegister:
    def test_is_visible_to_cursors_and_repeatable(self) -> None:
        with duckdb.connect() as fresh:
            udfs.register(fresh)
            udfs.register(fresh)
            with fresh.cursor() as cursor:
                udfs.register(cursor)
                assert select(cursor, "wasserstein([1, 0], [0, 1], 2)") == (2.0,)

    def test_leaves_a_macro_of_the_same_name(self) -> None:
        with duckdb.connect() as fresh:
            fresh.execute("CREATE MACRO wasserstein(p, q, width) AS 'mine'")
            udfs.register(fresh)
            row = select(fresh, "wasserstein(1, 2, 3), kolmogorov_smirnov([1, 0], [0, 1])")
            assert row == ("mine", 1.0)


class TestArrowLayouts:
    """Settings of DuckDB change how it hands over lists; results stay."""

    @pytest.mark.parametrize("setting", ["arrow_large_buffer_size", "arrow_output_list_view"])
    def test_settings_do_not_change_results(self, connection: duckdb.DuckDBPyConnection, setting: str) -> None:
        query = "SELECT eigh([2.0, 1.0, 2.0]), sparsity_udf(range(9 * n)::DOUBLE[], 0.5) FROM range(1, 5) t(n)"
        expected = connection.execute(query).fetchall()
        with duckdb.connect() as fresh:
            udfs.register(fresh)
            fresh.execute(f"SET {setting} = true")
            assert fresh.execute(query).fetchall() == expected

    def test_slices_chunks_and_numbers_below_null_are_read_right(self) -> None:
        below_null = pa.ListArray.from_arrays(
            pa.array([0, 2, 4, 5], pa.int32()),
            pa.array([1.0, 2.0, None, np.nan, 5.0]),
            mask=pa.array([False, True, False]),
        )
        column = pa.chunked_array([below_null, pa.array([[7.0], [8.0, 9.0]]).slice(1)])
        lists = Lists.from_arrow("x", column)
        assert lists.valid.tolist() == [True, False, True, True]
        assert lists.lengths.tolist() == [2, 0, 1, 2]
        assert lists.block(np.array([0, 3])).tolist() == [[1, 2], [8, 9]]

    def test_a_column_without_chunks_has_no_rows(self) -> None:
        lists = Lists.from_arrow("x", pa.chunked_array([], pa.list_(pa.float64())))
        assert lists.values.size == lists.lengths.size == lists.valid.size == 0

    def test_neighbouring_rows_are_not_copied(self) -> None:
        column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])])
        lists = Lists.from_arrow("x", column)
        address = column.chunk(0).values.buffers()[1].address
        assert lists.block(np.array([0, 1, 2])).__array_interface__["data"][0] == address

    def test_groups_of_long_lists_are_cut(self) -> None:
        size = np.full(5, BLOCK_VALUES // 2)
        groups = equal_rows(np.array([True, True, False, True, True]), size, size=size)
        assert [group.tolist() for group in groups] == [[0, 1], [3, 4]]


class TestEigh:
    def test_agrees_with_numpy_over_mixed_orders_and_batches(self, connection: duckdb.DuckDBPyConnection) -> None:
        rng = np.random.default_rng(1)
        matrices = [random_symmetric(rng, order) for order in rng.integers(1, 12, BATCH_ROWS + 500)]
        for matrix, result in zip(matrices, call(connection, "eigh", [packed(m) for m in matrices]), strict=True):
            values, vectors = np.array(result["eigenvalues"]), np.array(result["eigenvectors"])
            np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12)
            np.testing.assert_allclose(vectors.T * values @ vectors, matrix, atol=1e-12)
            np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(matrix)), atol=1e-12)
            strongest = np.abs(vectors).argmax(axis=1)
            assert (vectors[np.arange(len(matrix)), strongest] > 0).all()

    def test_null_and_empty_rows_lie_between_others(self, connection: duckdb.DuckDBPyConnection) -> None:
        first, second, third, fourth = call(connection, "eigh", [[3.0], None, [], [1.0, 0.0, 4.0]])
        assert first == {"eigenvalues": [3.0], "eigenvectors": [[1.0]]}
        assert second is None
        assert third is None
        assert fourth == {"eigenvalues": [4.0, 1.0], "eigenvectors": [[0.0, 1.0], [1.0, 0.0]]}

    def test_a_full_9x9_matrix_is_rejected(self, connection: duckdb.DuckDBPyConnection) -> None:
        expected = r"eigh: a list of matrix has length 81; expected k\(k\+1\)/2, .* \(45 for 9x9\)"
        with pytest.raises(duckdb.InvalidInputException, match=expected):
            call(connection, "eigh", [np.arange(81.0)])


class TestVarianceEntropy:
    def test_agrees_with_a_loop_over_mixed_lengths_and_batches(self, connection: duckdb.DuckDBPyConnection) -> None:
        rng = np.random.default_rng(2)
        layers = [rng.normal(1, 0.1, (n, 9)) for n in rng.integers(2, 70, 2 * BATCH_ROWS + 1)]
        results = call(connection, "variance_entropy_udf", [layer.ravel() for layer in layers])
        np.testing.assert_allclose(results, [naive_entropy(layer) for layer in layers], atol=1e-12)

    def test_fewer_than_two_filters_give_null(self, connection: duckdb.DuckDBPyConnection) -> None:
        assert call(connection, "variance_entropy_udf", [[], [1.0] * 9, None]) == [None, None, None]

    @pytest.mark.parametrize("n_filters", [2, 3, 10, 1000])
    def test_equal_filters_give_exactly_zero(self, connection: duckdb.DuckDBPyConnection, n_filters: int) -> None:
        one_filter = np.array([0.1, 1e-30, -3.3, 0, 1e4, 0.7, 0.3, 1 / 3, 2])
        assert call(connection, "variance_entropy_udf", [np.tile(one_filter, n_filters)]) == [0.0]

    def test_uniform_spectrum_gives_the_maximum(self, connection: duckdb.DuckDBPyConnection) -> None:
        filters = np.concatenate([np.eye(9), -np.eye(9)])
        assert call(connection, "variance_entropy_udf", [filters.ravel()]) == [pytest.approx(math.log10(9))]

    @settings(deadline=None)
    @given(arrays(float, (7, 9), elements=st.floats(-1, 1)), st.sampled_from([1e-300, 1e-9, 3.0, 1e300]))
    def test_does_not_depend_on_scale(self, filters: np.ndarray, factor: float) -> None:
        filters = filters.round(3)
        plain, other = call_directly("variance_entropy_udf", [filters.ravel(), filters.ravel() * factor])
        assert other == pytest.approx(plain, abs=1e-9)
        assert 0 <= plain <= math.log10(9) + 1e-12

    def test_lengths_must_be_multiples_of_nine(self, connection: duckdb.DuckDBPyConnection) -> None:
        expected = "variance_entropy_udf: a list of weights has length 10; expected a multiple of 9"
        with pytest.raises(duckdb.InvalidInputException, match=expected):
            call(connection, "variance_entropy_udf", [None, range(18), range(10)])


class TestOrthogonality:
    def test_agrees_with_a_loop_over_mixed_shapes_and_batches(self, connection: duckdb.DuckDBPyConnection) -> None:
        rng = np.random.default_rng(3)
        channels = rng.integers(2, 6, BATCH_ROWS + 300)
        layers = [rng.normal(size=m * 9 * rng.integers(1, 4)) for m in channels]
        layers[7][:9] = 0
        expected = [naive_orthogonality(layer, m) for layer, m in zip(layers, channels, strict=True)]
        np.testing.assert_allclose(call(connection, "orthogonality_udf", layers, channels), expected, atol=1e-12)

    def test_one_list_can_be_read_with_different_out_channels(self, connection: duckdb.DuckDBPyConnection) -> None:
        layer = np.random.default_rng(4).normal(size=12 * 9)
        channels = [1, 2, 3, None, 12, 2]
        expected = [m and (None if m == 1 else pytest.approx(naive_orthogonality(layer, m))) for m in channels]
        assert call(connection, "orthogonality_udf", [layer] * 6, channels) == expected

    def test_orthogonal_is_one_and_parallel_is_zero(self, connection: duckdb.DuckDBPyConnection) -> None:
        parallel = np.outer([1, -2, 3], np.arange(9.0)).ravel()
        results = call(connection, "orthogonality_udf", [np.eye(9).ravel(), parallel], [9, 3])
        assert results == pytest.approx([1, 0])

    @pytest.mark.parametrize(
        ("length", "out_channels", "message"),
        [
            (27, 2, r"a list of weights has length 27; expected a multiple of 9 \* out_channels = 18"),
            (20, 2, "a list of weights has length 20; expected a multiple of 9"),
            (18, 0, "out_channels is 0; expected 1 or more"),
            (18, -1, "out_channels is -1; expected 1 or more"),
        ],
    )
    def test_wrong_shapes_are_rejected(
        self, connection: duckdb.DuckDBPyConnection, length: int, out_channels: int, message: str
    ) -> None:
        with pytest.raises(duckdb.InvalidInputException, match=f"orthogonality_udf: {message}"):
            call(connection, "orthogonality_udf", [range(length)], [out_channels])


class TestSparsity:
    def test_agrees_with_a_loop_over_mixed_lengths_and_batches(self, connection: duckdb.DuckDBPyConnection) -> None:
        rng = np.random.default_rng(5)
        layers = [rng.lognormal(sigma=3, size=(n, 9)) for n in rng.integers(1, 40, BATCH_ROWS + 1)]
        eps = rng.uniform(0, 0.1, len(layers))
        expected = []
        for layer, share in zip(layers, eps, strict=True):
            peaks = [max(abs(one_filter)) for one_filter in layer]
            expected.append(sum(peak < share * max(peaks) for peak in peaks) / len(peaks))
        assert call(connection, "sparsity_udf", [layer.ravel() for layer in layers], eps) == expected

    def test_every_filter_of_a_layer_of_zeros_is_sparse(self, connection: duckdb.DuckDBPyConnection) -> None:
        assert call(connection, "sparsity_udf", [ZERO_FILTER * 3, ZERO_FILTER * 3], [0.01, 0.0]) == [1.0, 1.0]

    def test_a_peak_on_the_threshold_is_not_sparse(self, connection: duckdb.DuckDBPyConnection) -> None:
        assert call(connection, "sparsity_udf", [[1.0] * 9 + [-0.5] + ZERO_FILTER[1:]], [0.5]) == [0.0]

    @pytest.mark.parametrize("eps", [-0.1, math.inf, math.nan])
    def test_eps_must_be_a_share(self, connection: duckdb.DuckDBPyConnection, eps: float) -> None:
        with pytest.raises(duckdb.InvalidInputException, match=f"sparsity_udf: eps is {eps}; expected a share"):
            call(connection, "sparsity_udf", [ZERO_FILTER], [eps])


HISTOGRAM_DISTANCES = ["wasserstein", "jensen_shannon", "kolmogorov_smirnov"]
histograms = arrays(float, 8, elements=st.floats(0, 1e6)).filter(lambda histogram: histogram.sum() > 1e-200)


def comparison(name: str, p: Sequence, q: Sequence) -> list[Sequence]:
    """Return the arguments of a distance: wasserstein also takes the width of the bins."""
    return [p, q, [0.25] * len(p)] if name == "wasserstein" else [p, q]


@pytest.fixture(scope="module")
def pairs() -> tuple[list, list]:
    """Pairs of counts over 1 to 79 bins, none of them empty."""
    rng = np.random.default_rng(6)
    bins = rng.integers(1, 80, BATCH_ROWS + 700)
    first, second = ([rng.poisson(2, n) + (np.arange(n) == 0) for n in bins] for _ in range(2))
    return first, second


class TestHistogramDistances:
    def test_wasserstein_agrees_with_scipy(
        self, connection: duckdb.DuckDBPyConnection, pairs: tuple[list, list]
    ) -> None:
        widths = np.random.default_rng(7).uniform(0.1, 2, len(pairs[0]))
        expected = [scipy_wasserstein(p, q, width) for p, q, width in zip(*pairs, widths, strict=True)]
        np.testing.assert_allclose(call(connection, "wasserstein", *pairs, widths), expected, atol=1e-12)

    def test_jensen_shannon_is_the_square_of_scipys_distance(
        self, connection: duckdb.DuckDBPyConnection, pairs: tuple[list, list]
    ) -> None:
        expected = [distance.jensenshannon(p, q) ** 2 for p, q in zip(*pairs, strict=True)]
        np.testing.assert_allclose(call(connection, "jensen_shannon", *pairs), expected, atol=1e-12)

    def test_kolmogorov_smirnov_agrees_with_scipy_on_samples(
        self, connection: duckdb.DuckDBPyConnection, pairs: tuple[list, list]
    ) -> None:
        expected = [
            stats.ks_2samp(np.repeat(np.arange(len(p)), p), np.repeat(np.arange(len(q)), q)).statistic
            for p, q in zip(pairs[0][:50], pairs[1][:50], strict=True)
        ]
        np.testing.assert_allclose(call(connection, "kolmogorov_smirnov", pairs[0][:50], pairs[1][:50]), expected)

    @pytest.mark.parametrize(("name", "largest"), [("jensen_shannon", math.log(2)), ("kolmogorov_smirnov", 1)])
    def test_disjoint_histograms_are_as_far_as_can_be(
        self, connection: duckdb.DuckDBPyConnection, name: str, largest: float
    ) -> None:
        assert call(connection, name, *comparison(name, [[3, 0]], [[0, 0.1]])) == [pytest.approx(largest)]

    @pytest.mark.parametrize("name", HISTOGRAM_DISTANCES)
    def test_histograms_without_mass_give_null(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        empty, full = [0.0, 0.0], [1.0, 2.0]
        results = call(
            connection,
            name,
            *comparison(name, [empty, full, full, None, full], [full, empty, full, full, None]),
        )
        assert results == [None, None, 0.0, None, None]

    @pytest.mark.parametrize("name", HISTOGRAM_DISTANCES)
    def test_histograms_must_have_equal_bins(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        expected = f"{name}: p has 2 bins and q has 3; expected the same bins"
        with pytest.raises(duckdb.InvalidInputException, match=expected):
            call(connection, name, *comparison(name, [[1, 2]], [[1, 2, 3]]))

    @pytest.mark.parametrize("name", HISTOGRAM_DISTANCES)
    def test_entries_must_not_be_negative(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        with pytest.raises(duckdb.InvalidInputException, match=f"{name}: a list of p holds -2.0; a histogram"):
            call(connection, name, *comparison(name, [[1, -2, 5]], [[1, 2, 3]]))

    @pytest.mark.parametrize("width", [0.0, -1.0, math.nan])
    def test_width_must_be_positive(self, connection: duckdb.DuckDBPyConnection, width: float) -> None:
        with pytest.raises(duckdb.InvalidInputException, match=f"wasserstein: width is {width}; expected"):
            call(connection, "wasserstein", [[1.0]], [[1.0]], [width])

    @pytest.mark.parametrize("name", HISTOGRAM_DISTANCES)
    @settings(deadline=None)
    @given(p=histograms, q=histograms, factor=st.floats(1e-3, 1e3))
    def test_symmetric_zero_on_equal_and_free_of_scale(
        self, name: str, p: np.ndarray, q: np.ndarray, factor: float
    ) -> None:
        arguments = comparison(name, [p, q, p, p * factor], [q, p, p, q])
        forth, back, same, rescaled = call_directly(name, *arguments)
        assert forth == back
        assert forth >= 0
        assert same == 0
        assert rescaled == pytest.approx(forth, abs=1e-9)

    @pytest.mark.parametrize(
        ("name", "power"), [("wasserstein", 1), ("jensen_shannon", 0.5), ("kolmogorov_smirnov", 1)]
    )
    @settings(deadline=None)
    @given(a=histograms, b=histograms, c=histograms)
    def test_triangle_inequality(self, name: str, power: float, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        arguments = comparison(name, [a, a, b], [c, b, c])
        direct, first, second = np.power(call_directly(name, *arguments), power)
        assert direct <= first + second + 1e-6


def distances_of(points: np.ndarray) -> np.ndarray:
    return distance.pdist(points)


def scaled_by_hand(distances: np.ndarray, dimensions: int) -> tuple[np.ndarray, float]:
    """Torgerson's way with whole matrices: coordinates but for their signs, and the share of the eigenvalues."""
    squares = distance.squareform(distances) ** 2
    centring = np.eye(len(squares)) - 1 / len(squares)
    values, vectors = np.linalg.eigh(-centring @ squares @ centring / 2)
    order = np.argsort(-values)
    values, vectors = values[order].clip(min=0), vectors[:, order]
    return vectors[:, :dimensions] * np.sqrt(values[:dimensions]), values[:dimensions].sum() / values.sum()


class TestClassicalMds:
    def test_points_of_a_plane_come_back_but_for_rotation_and_reflection(
        self, connection: duckdb.DuckDBPyConnection
    ) -> None:
        rng = np.random.default_rng(12)
        sets = [rng.normal(size=(n, 2)) * [3, 1] + rng.normal(size=2) for n in rng.integers(3, 20, BATCH_ROWS + 5)]
        found = call(connection, "classical_mds", [distances_of(points) for points in sets], [2] * len(sets))
        for points, row in zip(sets, found, strict=True):
            coordinates = np.array(row["coordinates"])
            assert row["held_share"] == pytest.approx(1, abs=1e-12)
            # Procrustes: the best rotation or reflection of the found points onto the centred ones leaves nothing
            centred = points - points.mean(axis=0)
            u, _, v = np.linalg.svd(coordinates.T @ centred)
            np.testing.assert_allclose(coordinates @ u @ v, centred, atol=1e-7)

    def test_a_rectangle_lies_along_the_axes(self) -> None:
        corners = np.array([[2.0, 1], [2, -1], [-2, 1], [-2, -1]])
        (row,) = call_directly("classical_mds", [distances_of(corners)], [2])
        np.testing.assert_allclose(row["coordinates"], corners, atol=1e-12)

    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_any_dissimilarities_agree_with_centring_by_matrices(
        self, connection: duckdb.DuckDBPyConnection, dimensions: int
    ) -> None:
        rng = np.random.default_rng(13)
        dissimilarities = [rng.uniform(0.5, 4, n * (n - 1) // 2) for n in rng.integers(4, 12, 60)]
        found = call(connection, "classical_mds", dissimilarities, [dimensions] * 60)
        for distances, row in zip(dissimilarities, found, strict=True):
            coordinates, share = scaled_by_hand(distances, dimensions)
            signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), range(dimensions)])
            # an eigenvalue of 0 is one of 1e-16 to the other, and its root 1e-8
            np.testing.assert_allclose(row["coordinates"], coordinates * signs, atol=1e-7)
            assert row["held_share"] == pytest.approx(share)

    def test_rows_may_differ_in_points_and_dimensions(self, connection: duckdb.DuckDBPyConnection) -> None:
        rng = np.random.default_rng(14)
        counts, widths = [5, 1, 2, 5, 3, 5, 2], [2, 3, 1, 1, 7, 2, 2]
        sets = [rng.normal(size=(n, 3)) for n in counts]
        found = call(connection, "classical_mds", [distances_of(points) for points in sets], widths)
        for points, width, row in zip(sets, widths, found, strict=True):
            coordinates = np.array(row["coordinates"])
            assert coordinates.shape == (len(points), width)
            if width >= 3:
                np.testing.assert_allclose(distances_of(coordinates), distances_of(points), atol=1e-9)

    def test_one_and_two_points_and_points_that_coincide(self, connection: duckdb.DuckDBPyConnection) -> None:
        results = call(connection, "classical_mds", [[], [4.0], [0.0], [0.0] * 6], [2] * 4)
        assert results == [
            {"coordinates": [[0, 0]], "held_share": None},
            {"coordinates": [[pytest.approx(2), 0], [pytest.approx(-2), 0]], "held_share": pytest.approx(1)},
            {"coordinates": [[0, 0]] * 2, "held_share": None},
            {"coordinates": [[0, 0]] * 4, "held_share": None},
        ]

    def test_axes_that_hold_only_rounding_errors_are_zero(self) -> None:
        line = np.outer(np.random.default_rng(15).normal(size=40), [1, 2])
        (row,) = call_directly("classical_mds", [distances_of(line)], [3])
        assert not np.array(row["coordinates"])[:, 1:].any()
        assert row["held_share"] == 1

    @settings(deadline=None)
    @given(
        points=arrays(float, (6, 2), elements=st.integers(-20, 20).map(float)),
        factor=st.sampled_from([1e-200, 1e-3, 1e200]),
    )
    def test_coordinates_are_centred_signed_and_grow_with_the_distances(
        self, points: np.ndarray, factor: float
    ) -> None:
        plain, other = call_directly("classical_mds", [distances_of(points), distances_of(points) * factor], [2, 2])
        coordinates = np.array(plain["coordinates"])
        np.testing.assert_allclose(coordinates.sum(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(distances_of(coordinates), distances_of(points), atol=1e-4)
        np.testing.assert_allclose(
            distances_of(np.array(other["coordinates"]) / factor), distances_of(points), atol=1e-4
        )
        spreads = (coordinates**2).sum(axis=0)
        assert spreads[0] >= spreads[1] - 1e-9
        assert (coordinates.max(axis=0) >= np.abs(coordinates).max(axis=0) - 1e-6).all()

    @pytest.mark.parametrize(
        ("distances", "dimensions", "message"),
        [
            ([1.0, 2.0], 2, r"a list of distances has length 2; expected n\(n-1\)/2, the packed upper triangle"),
            ([1.0, -2.0, 1.0], 2, "a list of distances holds -2.0; a distance is 0 or more"),
            ([1.0], 0, "dimensions is 0; expected 1 or more"),
        ],
    )
    def test_what_cannot_be_meant_is_rejected(
        self, connection: duckdb.DuckDBPyConnection, distances: list[float], dimensions: int, message: str
    ) -> None:
        with pytest.raises(duckdb.InvalidInputException, match=f"classical_mds: {message}"):
            call(connection, "classical_mds", [None, distances], [2, dimensions])
