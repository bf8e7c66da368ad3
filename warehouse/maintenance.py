"""Housekeeping of a warehouse: finds and removes files that no commit names."""

from __future__ import annotations

from pathlib import Path

from warehouse.connection import connect
from warehouse.lake import DATABASE, EXTRACTED, JOURNAL, leftovers, lock, remove_empty_folders


def vacuum(path: str | Path) -> tuple[int, int]:
    """Remove files that a replaced warehouse or an unfinished ingest left behind; that one can then not be resumed.

    Readers that opened the replaced warehouse lose sight of its single filters.

    Parameters
    ----------
    path
        The folder of a warehouse, or of one whose first ingest is not finished.

    Returns
    -------
    Number of files removed, and their size in bytes.

    Raises
    ------
    LakeError
        No warehouse is there, or another process writes into it.
    """
    folder = Path(path)
    # without its journal, a lake may be one whose database somebody has moved away
    if not (folder / JOURNAL).exists() and not (any(folder.glob(f"{EXTRACTED}*")) and not (folder / "lake").exists()):
        connect(folder).close()
    with lock(folder):
        found = leftovers(folder, committed_paths(folder))
        n_bytes = sum(file.stat().st_size for file in found)
        for file in found:
            file.unlink()
        remove_empty_folders(folder)
    return len(found), n_bytes


def committed_paths(folder: Path) -> set[str]:
    """Paths, from a warehouse's folder, of the files that its last commit names; none before the first."""
    if not (folder / DATABASE).exists():
        return set()
    with connect(folder) as con:
        return {name for (name,) in con.sql("select path from warehouse.files").fetchall()}
