"""Housekeeping of a warehouse: finds and removes files that no commit names."""

from __future__ import annotations

from pathlib import Path

from warehouse.connection import connect
from warehouse.lake import leftovers, lock, remove_empty_folders


def vacuum(path: str | Path) -> tuple[int, int]:
    """Remove files that a replaced warehouse or a broken ingest left behind.

    Readers that opened the replaced warehouse lose sight of its single filters.

    Parameters
    ----------
    path
        The warehouse's folder.

    Returns
    -------
    Number of files removed, and their size in bytes.

    Raises
    ------
    LakeError
        No warehouse is there, or another process writes into it.
    """
    folder = Path(path)
    connect(folder).close()
    with lock(folder):
        with connect(folder) as con:
            named = {name for (name,) in con.sql("select path from files").fetchall()}
        found = leftovers(folder, named)
        n_bytes = sum(file.stat().st_size for file in found)
        for file in found:
            file.unlink()
        remove_empty_folders(folder)
    return len(found), n_bytes
