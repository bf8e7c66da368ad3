"""The oldest supported DuckDB and the newest read each other's warehouses and answer the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import warehouse

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
(OLDEST,) = re.findall(r'"duckdb>=([0-9.]+)"', (PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
QUERIES = [
    "from drift(task)",
    "from drift_summary(depth_decile)",
    "from drift_between(conv_depth = 0, conv_depth > 0)",
    "from distances(task)",
    "from drift_map(task)",
    "from drift_interval(task, replicates := 20)",
    "from drift_controlled(task, depth_decile)",
    "from nearest_layers(0)",
    "from sparsity_at(task, 0.05)",
    "from pca(task) select grp, component, eigenvalue, cumulative_ratio",
    "from quality(visual_category)",
    "select count(*), sum(filter_id), sum(w4::double) from filters",
]
ANSWER = """
import json, sys, duckdb, warehouse
with warehouse.open(sys.argv[1]) as wh:
    for name, example in wh.sql("select name, example from help").fetchall():
        try:
            wh.sql(example).fetchall()
        except Exception as error:
            raise SystemExit(f"{name}: {example}: {error}")
    answers = [wh.sql(query).fetchall() for query in json.loads(sys.argv[2])]
print(json.dumps([duckdb.__version__, answers]))
"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with this project, the oldest DuckDB and the oldest shell."""
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [f"duckdb=={OLDEST}", "duckdb-cli==1.4.*"]
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted, PROJECT], check=True, cwd=folder
    )
    return folder / "bin"


@pytest.fixture(scope="module")
def built_by_oldest(oldest: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "cnn.warehouse"
    script = "import sys, warehouse; warehouse.ingest(sys.argv[1], sys.argv[2])"
    subprocess.run([oldest / "python", "-c", script, sample, path], check=True, cwd=path.parent)
    return path


@pytest.fixture(scope="module")
def wanted(sample_warehouse: Path) -> list:
    """What the newest DuckDB answers on its own warehouse."""
    return answers(Path(sys.executable), sample_warehouse)[1]


def answers(python: Path, folder: Path) -> list:
    """Version and answers, once every example of ``help`` has run."""
    done = subprocess.run(
        [python, "-W", "error", "-c", ANSWER, folder, json.dumps(QUERIES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flat(values: object) -> Iterator[object]:
    if isinstance(values, list):
        for value in values:
            yield from flat(value)
    else:
        yield values


def assert_same(found: list, expected: list) -> None:
    for one, other in zip(flat(found), flat(expected), strict=True):
        assert one == other or one == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_the_oldest_duckdb_opens_what_the_newest_built(oldest: Path, sample_warehouse: Path, wanted: list) -> None:
    version, found = answers(oldest / "python", sample_warehouse)
    assert version.startswith(OLDEST)
    assert_same(found, wanted)


def test_the_oldest_duckdb_builds_a_warehouse_and_opens_it(oldest: Path, built_by_oldest: Path, wanted: list) -> None:
    version, found = answers(oldest / "python", built_by_oldest)
    assert version.startswith(OLDEST)
    assert_same(found, wanted)


def test_the_newest_duckdb_opens_what_the_oldest_built(built_by_oldest: Path, wanted: list) -> None:
    version, found = answers(Path(sys.executable), built_by_oldest)
    assert not version.startswith(OLDEST)
    assert_same(found, wanted)


@pytest.mark.parametrize("builder", ["sample_warehouse", "built_by_oldest"])
def test_the_oldest_shell_runs_every_example(request: pytest.FixtureRequest, oldest: Path, builder: str) -> None:
    folder = request.getfixturevalue(builder)
    with warehouse.open(folder) as wh:
        examples = wh.sql("from help select example where kind != 'function' and name != 'drift_map'").fetchall()
    commands = [part for (example,) in examples for part in ("-c", example)]
    done = subprocess.run(
        [oldest / "duckdb", "-readonly", "-bail", "warehouse.duckdb", *commands],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(examples) >= 30
