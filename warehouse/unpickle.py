"""Restore the few pickles that pandas leaves in an HDF5 file, without running anything they name.

Gets the bytes of one pickle and hands on plain values and NumPy arrays of plain values. Four locks keep a
hostile pickle harmless: only the opcodes that such data needs, and so many; only the names below (each answered
by a stand-in of this module, never by the real object); no element that the bytes themselves do not hold; and no
more elements made of repeated ones than there are bytes.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from warehouse.errors import SourceError

# No dictionaries and sets (hashing deeply nested keys overflows the C stack, and a dictionary could set
# attributes of the stand-ins), no extension registry, no persistent ids, no `__new__` of classes.
_NEEDED = (
    "PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE"
    " INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE SHORT_BINUNICODE BINUNICODE"
    " BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE"
    " TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD"
)
_OPCODES = frozenset(_NEEDED.split())
_MAX_OPCODES = 1 << 22  # the largest block of CNN Filter DB has 0.5 million
_MAX_INTEGER_BITS = 1024
_DTYPE_CODE = re.compile(r"O[48]|b1|i[1248]|u[1248]|f[248]|U\d{1,6}")
_SCALARS = (type(None), bool, int, float, str)


def loads(data: bytes) -> object:
    """Restore a pickle of a plain value, of a list of plain values, or of an array of them.

    Parameters
    ----------
    data
        The pickle, of any protocol, as written under NumPy 1 or 2.

    Returns
    -------
    object
        ``None``, a ``bool``, ``int``, ``float`` or ``str``, a list of these, or an ``ndarray`` of a numeric,
        boolean or object dtype. The elements of an object array are plain values or lists of them: NumPy
        scalars and one-dimensional arrays inside it have become Python's.

    Raises
    ------
    SourceError
        If the pickle names anything outside the allow-list, declares more elements than it holds, nests
        deeper than a list in an array, or is damaged.
    """
    try:
        _check_opcodes(data)
        budget = _Budget(len(data))
        restored = _Reader(data, budget).load()
        if isinstance(restored, _Array):
            return restored.restore(budget)
        return _plain(restored, {}, budget)
    except SourceError:
        raise
    except Exception as error:  # the pickle module promises no particular error for damaged data
        reason = repr(str(error)[:100])
        raise SourceError(f"a pickle of {len(data):,} bytes is damaged ({reason}); nothing was run") from error


def _check_opcodes(data: bytes) -> None:
    for number, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        if number > _MAX_OPCODES:
            raise SourceError(f"a pickle has more than {_MAX_OPCODES:,} instructions; nothing was run")
        if opcode.name not in _OPCODES:
            raise SourceError(
                f"a pickle uses the instruction {opcode.name} at byte {position}, "
                "which a table of layers does not need; nothing was run"
            )
        # The parser allocates its memo up to the highest index that it is told.
        if isinstance(argument, int) and opcode.name in {"PUT", "LONG_BINPUT"} and argument > len(data):
            raise SourceError(f"a pickle claims {argument:,} memo entries in {len(data):,} bytes")


class _Budget:
    """How much a pickle may yet make of what it repeats: a few bytes can name a large value a million times."""

    def __init__(self, size: int) -> None:
        self.size = self.left = size

    def spend(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise SourceError(f"a pickle of {self.size:,} bytes unfolds to more values than that; nothing was run")


class _Reader(pickle.Unpickler):
    """The parser of the pickle module, with every name answered by a stand-in."""

    def __init__(self, data: bytes, budget: _Budget) -> None:
        super().__init__(io.BytesIO(data))
        self._budget = budget

    def find_class(self, module: str, name: str) -> object:
        try:
            stand_in = _STAND_INS[module, name]
        except KeyError:
            raise SourceError(
                f"a pickle names {f'{module}.{name}'[:100]!r}, which a table of layers does not need; "
                "nothing was run. Do not open this file with pandas unless you trust who wrote it"
            ) from None
        # no `partial`, which takes a state, and could be given itself to call
        return (lambda *arguments: stand_in(self._budget, *arguments)) if stand_in in _SPENDING else stand_in


class _Dtype:
    """Stands in for ``numpy.dtype``: objects, text, or one plain number type."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *_align_and_copy: object) -> None:
        # A message spells only text: nested tuples can be short to store and endless to spell.
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            found = repr(code[:40]) if isinstance(code, str) else type(code).__name__
            raise SourceError(f"a pickle holds NumPy values of type {found}; numbers, text and objects are read")
        self.dtype: np.dtype[np.generic] = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, order, subarray, names, fields, *_ = state
        if order not in ("<", ">", "|", "=") or (subarray, names, fields) != (None, None, None):
            raise SourceError("a pickle holds a structured NumPy type; numbers, text and objects are read")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for ``numpy.ndarray``: keeps what the pickle says until all of it is there."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _version, self.shape, self.dtype, self.fortran, self.data = state

    def restore(self, budget: _Budget) -> np.ndarray:
        """Build the array, its elements made plain."""
        if self._dtype().hasobject:
            objects = self._objects()
            cells = np.empty(len(objects), object)
            seen: dict[int, list[object]] = {}
            for position, cell in enumerate(objects):
                cells[position] = _plain(cell, seen, budget)
            # NumPy lists the objects of an array in C order, whatever the flag says.
            return cells.reshape(self._shape())
        return self._numbers()

    def _numbers(self) -> np.ndarray:
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        values: np.ndarray = np.frombuffer(self._bytes(), self._dtype())
        return values.reshape(self._shape(), order=order).copy()

    def flat(self, budget: _Budget) -> list[object]:
        """List a one-dimensional array of plain values."""
        if len(self._shape()) != 1:
            raise SourceError(f"a pickle holds an array of shape {self._shape()} in a cell; 1-D is read")
        budget.spend(self._count() + self._n_bytes())
        if self._dtype().hasobject:
            return list(_scalars(self._objects()))
        return list(self._numbers().tolist())

    def item(self, budget: _Budget) -> object:
        """Return the one value of an array without axes."""
        if self._dtype().hasobject:
            raise SourceError("a pickle holds a NumPy scalar that is an object")
        budget.spend(self._n_bytes())
        return self._numbers().item()

    def _dtype(self) -> np.dtype[np.generic]:
        if not isinstance(self.dtype, _Dtype):
            raise SourceError("a pickle holds an array without a NumPy type")
        return self.dtype.dtype

    def _shape(self) -> tuple[int, ...]:
        shape = self.shape
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise SourceError("a pickle holds an array whose shape is not a tuple of whole numbers")
        return shape

    def _count(self) -> int:
        return math.prod(self._shape())

    def _n_bytes(self) -> int:
        return 0 if self._dtype().hasobject else self._count() * self._dtype().itemsize

    def _objects(self) -> list[object]:
        if not isinstance(self.data, list) or len(self.data) != self._count():
            raise SourceError(f"a pickle declares an array of shape {self._shape()} and does not hold its elements")
        return self.data

    def _bytes(self) -> bytes | bytearray:
        if not isinstance(self.data, bytes | bytearray) or len(self.data) != self._n_bytes():
            raise SourceError(f"a pickle declares an array of shape {self._shape()} and does not hold its bytes")
        return self.data


def _plain(value: object, seen: dict[int, list[object]], budget: _Budget) -> object:
    """Return a plain value or a list of them; `seen` keeps a list that is repeated from being copied."""
    if _is_scalar(value):
        return value
    if id(value) not in seen:
        if isinstance(value, _Array):
            seen[id(value)] = value.flat(budget)
        elif isinstance(value, list):
            seen[id(value)] = list(_scalars(value))
        else:
            raise SourceError(f"a pickle holds a {type(value).__name__}; numbers, text and lists are read")
    return seen[id(value)]


def _is_scalar(value: object) -> bool:
    """Whether a value is plain; whole numbers beyond 1024 bits, whose digits take long to spell, are not."""
    return isinstance(value, _SCALARS) and not (type(value) is int and value.bit_length() > _MAX_INTEGER_BITS)


def _scalars(values: list[object]) -> Iterator[object]:
    for value in values:
        if not _is_scalar(value):
            raise SourceError(f"a pickle holds a {type(value).__name__} in a list; numbers and text are read")
        yield value


def _reconstruct(*_class_shape_and_type: object) -> _Array:
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(budget: _Budget, dtype: object, data: object) -> object:
    array = _Array()
    array.__setstate__((1, (), dtype, False, data))
    return array.item(budget)


def _encode(budget: _Budget, text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which protocols 0 to 2 spell bytes."""
    if encoding != "latin1":
        raise SourceError("a pickle spells bytes in another encoding than latin1")
    budget.spend(len(text))
    return text.encode("latin1")


_SPENDING: tuple[object, ...] = (_encode, _scalar)
_STAND_INS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,  # only ever handed to `_reconstruct`
    ("pandas", "NA"): None,
    ("pandas._libs.missing", "NA"): None,
    **{
        (f"{core}.{module}", name): stand_in
        for core in ("numpy.core", "numpy._core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
