"""Reads the pickle of a PyTorch checkpoint as a description of tensors, without the pickle module.

Gets bytes; hands on dictionaries, lists, plain values and `Stored` tensors. A small machine interprets the few
instructions that a state dict needs. It calls nothing: the names that a pickle may mention stand for what this
module makes of them, and any other is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from warehouse.errors import SourceError

STORAGES = {
    "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bfloat16", "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "u1", "QInt8": "i1", "QUInt8": "u1", "QInt32": "i4",
    "ComplexFloat": "c8", "ComplexDouble": "c16", "Untyped": "u1",
}  # fmt: skip
"""NumPy's types of the classes of storages; bfloat16 is none of NumPy's own."""

_SAFE_ALTERNATIVE = (
    "nothing was run. Save the weights alone: torch.save(model.state_dict(), file), or safetensors, or ONNX"
)
_MAX_INSTRUCTIONS = 5_000_000
_MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: the type of its elements, its key and how many there are."""

    dtype: str
    key: str
    n: int


@dataclass(frozen=True)
class Stored:
    """A tensor as a view of a storage; ``scale``, ``zero_point`` and ``axis`` are those of a quantised one."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    scale: float | Stored | None = None
    zero_point: int | Stored = 0
    axis: int = 0

    @property
    def dtype(self) -> str:
        """The type of the elements, as `STORAGES` names it."""
        return self.storage.dtype

    @property
    def n_span(self) -> int:
        """Elements of the storage from the first to the last of the tensor."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True)
class _Name:
    """What an instruction names: a function, class or constant that is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Mark:
    """Where the arguments of a later instruction begin."""


_MARK = _Mark()


def load(data: bytes, start: int = 0) -> tuple[Any, int]:
    """Interpret the pickle that begins at a byte.

    Returns
    -------
    tuple
        What it describes, and the byte after it.

    Raises
    ------
    SourceError
        It needs a class or function that a state dict does not, or is damaged.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        value = _Machine().run(stream)
    except SourceError:
        raise
    except Exception as error:  # damaged data fails in many ways, none of them worth telling apart
        raise SourceError(f"its pickle is damaged ({type(error).__name__}: {error!s:.100})") from error
    return value, stream.tell()


class _Machine:
    """A stack, a memo and the instructions on them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        for number, (opcode, argument, _position) in enumerate(pickletools.genops(stream)):
            if number > _MAX_INSTRUCTIONS:
                raise SourceError(f"its pickle has more than {_MAX_INSTRUCTIONS:,} instructions; {_SAFE_ALTERNATIVE}")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSHED:
                self.stack.append(argument)
                continue
            step = _STEPS.get(opcode.name)
            if step is None:
                raise SourceError(f"its pickle needs the instruction {opcode.name}; {_SAFE_ALTERNATIVE}")
            step(self, argument)
        raise SourceError("its pickle has no end: truncated")

    def since_mark(self) -> list[Any]:
        """Take what was pushed since the last mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise SourceError("its pickle is damaged: no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def push_tuple(self, n: int) -> None:
        values = tuple(self.stack[len(self.stack) - n :])
        if len(values) < n:
            raise SourceError("its pickle is damaged: an empty stack")
        del self.stack[len(self.stack) - n :]
        self.stack.append(values)

    def put(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise SourceError("its pickle is damaged: items of something that has none")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # other keys than these could be nested deeply, and hashing them would not end well
            if not isinstance(key, str | int):
                key = f"<{type(key).__name__}>"
            target[key] = value

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise SourceError("its pickle is damaged: elements of something that is no list")
        target.extend(values)

    def name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.stack.append(_allowed(_Name(module, name)))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise SourceError("its pickle is damaged: a name that is no text")
        self.stack.append(_allowed(_Name(module, name)))

    def call(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise SourceError(f"its pickle calls what is no known function; {_SAFE_ALTERNATIVE}")
        self.stack.append(_CALLS[str(called)](*arguments) if str(called) in _CALLS else None)

    def build(self) -> None:
        """Drop a state: of a state dict, it is the versions of its layers."""
        self.stack.pop()

    def persistent(self) -> None:
        self.stack.append(_storage(self.stack.pop()))


def _allowed(name: _Name) -> _Name:
    is_storage = name.module in ("torch", "torch.cuda", "torch.storage") and _storage_dtype(name) is not None
    if str(name) in _CALLS or str(name) in _CONSTANTS or is_storage or _is_constant(name):
        return name
    raise SourceError(f"its pickle needs {str(name)[:100]!r}, which is more than weights; {_SAFE_ALTERNATIVE}")


def _is_constant(name: _Name) -> bool:
    """Types and schemes, such as ``torch.float32`` and ``torch.per_channel_affine``."""
    return name.module == "torch" and name.name.startswith(
        ("float", "bfloat16", "int", "uint", "bool", "complex", "half", "double", "qint", "quint", "per_", "strided")
    )


def _storage_dtype(name: _Name) -> str | None:
    return STORAGES.get(name.name.removesuffix("Storage")) if name.name.endswith("Storage") else None


def _storage(described: Any) -> Storage:
    """The storage that a persistent id describes: kind, class, key, place and number of elements."""
    if not isinstance(described, tuple) or len(described) < 5 or described[0] != "storage":
        raise SourceError("its pickle refers to something that is no storage")
    _kind, class_, key, _place, n, *_view = described
    dtype = _storage_dtype(class_) if isinstance(class_, _Name) else None
    if dtype is None or not isinstance(key, str | int) or not isinstance(n, int) or n < 0:
        raise SourceError("its pickle describes a storage of no known kind")
    return Storage(dtype, str(key), n)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_others: Any) -> Stored:
    """A view of a storage, checked against its size before anything is made of it."""
    if not isinstance(storage, Storage) or len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        raise SourceError("its pickle describes a tensor of no possible shape")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (offset, *shape, *stride)):
        raise SourceError("its pickle describes a tensor of no possible shape")
    tensor = Stored(storage, offset, tuple(shape), tuple(stride))
    if math.prod(shape) > storage.n or offset + tensor.n_span > storage.n:
        raise SourceError(
            f"a tensor of shape {tuple(shape[:8])} does not fit into its storage of {storage.n:,} elements"
        )
    return tensor


def _quantised(storage: Any, offset: Any, shape: Any, stride: Any, how: Any, *_others: Any) -> Stored:
    tensor = _tensor(storage, offset, shape, stride)
    if not isinstance(how, tuple) or len(how) not in (3, 4):
        raise SourceError("its pickle describes a quantised tensor of no known scheme")
    _scheme, scale, zero_point, axis = (*how, 0)[:4]
    if not isinstance(scale, float | Stored) or not isinstance(zero_point, int | Stored) or not isinstance(axis, int):
        raise SourceError("its pickle describes a quantised tensor of no known scheme")
    return Stored(storage, offset, tensor.shape, tensor.stride, scale, zero_point, axis)


def _first(value: Any, *_others: Any) -> Any:
    return value


def _empty(*_arguments: Any) -> dict[Any, Any]:
    return {}


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _empty,
    "collections.defaultdict": _empty,
    "collections.Counter": _empty,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch.Size": _first,
}
"""What may be called, and what of this module stands in for it."""

_CONSTANTS = {
    *("torch.device", "_codecs.encode", "builtins.set", "builtins.list", "builtins.dict"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
}
"""What may be named or called besides, such as by an accuracy kept beside the weights: it comes to nothing."""

_PUSHED = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8"
    " BINSTRING SHORT_BINSTRING STRING SHORT_BINBYTES BINBYTES BINBYTES8".split()
)
"""Instructions that push their argument."""

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda _m, _a: None,
    "FRAME": lambda _m, _a: None,
    "MARK": lambda m, _: m.stack.append(_MARK),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "PUT": lambda m, a: m.put(a),
    "BINPUT": lambda m, a: m.put(a),
    "LONG_BINPUT": lambda m, a: m.put(a),
    "MEMOIZE": lambda m, _: m.put(None),
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "GLOBAL": lambda m, a: m.name(a),
    "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}
