"""The convolutions of a safetensors file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 by it
from safetensors import safe_open

from warehouse.errors import SourceError
from warehouse.extraction.files import checksum
from warehouse.extraction.mapping import Tensor, by_number, find_state, found_in
from warehouse.extraction.model import Array, Found

_ORDER = "conv_depth is the order of the names, their numbers by value: the format keeps no other, and no graph"

_TOO_SHORT = ("F4", "F6_", "F8_")
"""How the names begin of the types that NumPy does not have, not even with ml_dtypes under these names."""


def read(path: Path) -> Found:
    """Find the convolutions of a safetensors file.

    Raises
    ------
    SourceError
        It is no such file, does not hold what its header declares, or names a tensor twice.
    """
    with safe_open(path, "np") as file:  # checks the header against the size of the file
        _refuse_duplicates(path)
        slices = {name: file.get_slice(name) for name in sorted(file.keys(), key=by_number)}
        described = {
            name: SimpleNamespace(shape=tuple(one.get_shape()), dtype=one.get_dtype()) for name, one in slices.items()
        }
    # prefixes are stripped from the names, which the file does not know
    names = {id(tensor): name for name, tensor in described.items()}
    state, notes = find_state(described, lambda value: isinstance(value, SimpleNamespace))
    for name, one in state.items():
        if len(one.shape) == 4 and one.dtype.startswith(_TOO_SHORT):
            raise SourceError(f"{name!r} is of type {one.dtype}, which is not read; save it as F16, BF16 or F32")
    tensors = [
        Tensor(name, one.shape, is_number=one.dtype[:1] in ("F", "B") and one.dtype != "BOOL")
        for name, one in state.items()
    ]
    stored = {name: names[id(one)] for name, one in state.items()}

    @contextmanager
    def open_() -> Iterator[Callable[[str], Array]]:
        with safe_open(path, "np") as file:
            yield lambda name: file.get_tensor(stored[name])

    return found_in(tensors, open_, format_="safetensors", checksum=checksum([path]), notes=(*notes, _ORDER))


def _refuse_duplicates(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, n in Counter(name for name, _ in found).items():
            if n > 1:
                raise SourceError(f"{n} tensors are called {name!r}")
        return dict(found)

    json.loads(header, object_pairs_hook=pairs)
