"""Every analysis answers on every warehouse, in any working directory, without what Python adds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

import warehouse
from tests.analysed import warehouse_of
from warehouse import analyses

NAMES = [analysis.name for analysis in analyses.load()]
RAW = {"coefficient_density"}
"""What reads single filters, and so needs the folder."""


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of which next to nothing is known: the first has no statistics, the second a filter of zeros."""
    folder = tmp_path_factory.mktemp("unlabelled")
    rng = np.random.default_rng(3)
    layers = [(None, np.full((4, 9), np.nan)), (None, np.zeros((1, 9))), (None, rng.normal(size=(20, 9)))]
    with warehouse_of(folder, layers, allow_nonfinite=True) as opened:
        return opened.path


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of a dataset in the layout of CNN Filter DB v0.1.0."""
    folder = tmp_path_factory.mktemp("older")
    warehouse.write_sample(folder / "dataset.h5", filters=3_000, layers=40, models=8, layout="v0.1")
    return warehouse.ingest(folder / "dataset.h5", folder / "cnn.warehouse").path


@pytest.fixture(scope="module", params=["unlabelled", "older", "lens_warehouse"])
def database(request: pytest.FixtureRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database alone, read-only and without UDFs."""
    with duckdb.connect(request.getfixturevalue(request.param) / "warehouse.duckdb", read_only=True) as con:
        yield con


@pytest.mark.parametrize("name", sorted({*NAMES} - RAW))
def test_it_answers_with_the_columns_that_it_describes(database: duckdb.DuckDBPyConnection, name: str) -> None:
    ((text, described),) = database.execute("select query, columns from analyses where name = $1", [name]).fetchall()
    for column in database.sql(text).to_arrow_table().column_names:
        # a range of columns is described by its ends
        assert column in re.findall(r"\w+", described) or column in {f"w{i}" for i in range(9)}, column


def test_all_run_as_they_stand_in_the_plain_shell(lens_warehouse: Path, tmp_path: Path) -> None:
    shell = shutil.which("duckdb", path=sysconfig.get_path("scripts"))
    assert shell is not None
    texts = [analysis.text for analysis in analyses.load() if analysis.name not in RAW]
    script = ".bail on\n.mode trash\n" + "\n".join(texts) + "\n.mode list\nselect 'the end';\n"
    command = [shell, "-readonly", "-no-stdin", str(lens_warehouse / "warehouse.duckdb")]
    (tmp_path / "all.sql").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [*command, "-f", str(tmp_path / "all.sql")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.endswith("the end\n")
