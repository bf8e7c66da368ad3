"""Pickles: what pandas writes comes back, what anyone else plants is refused and never run."""

import contextlib
import math
import os
import pickle
import struct
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.errors import SourceError
from warehouse.unpickle import loads

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.integers(), max_size=4),
)


def object_array(rows: list[list[Any]]) -> np.ndarray:
    values = np.empty((len(rows), len(rows[0])), object)
    for position, row in enumerate(rows):
        for column, cell in enumerate(row):
            values[position, column] = cell
    return values


def as_numpy_1(data: bytes) -> bytes:
    """Rename the modules of a pickle as NumPy 1 knew them, keeping string and frame lengths right."""
    renamed = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    renamed = renamed.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
    renamed = renamed.replace(b"cnumpy._core.", b"cnumpy.core.")
    if data[1] >= 4 and data[2:3] == b"\x95":
        (frame,) = struct.unpack("<Q", data[3:11])
        renamed = renamed[:3] + struct.pack("<Q", frame - len(data) + len(renamed)) + renamed[11:]
    assert b"numpy._core" not in renamed
    return renamed


class Planted:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [None, True, 7, -(2**70), 2.5, math.inf, "", "Größe\n", ["a", 1, None, 0.5], []])
def test_plain_values_come_back(value: object, protocol: int) -> None:
    assert loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rename", [as_numpy_1, bytes], ids=["numpy 1", "numpy 2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_object_arrays_come_back(protocol: int, rename: Any, order: Any) -> None:
    values = object_array([["0:4", None, 1.5], ["5:9", True, [1, 2]]]).copy(order)
    restored = loads(rename(pickle.dumps(values, protocol)))
    assert isinstance(restored, np.ndarray)
    assert restored.dtype == object
    assert restored.tolist() == values.tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "f2", "i1", "u8", ">i4", "?", "<U3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numeric_arrays_come_back(protocol: int, dtype: str, order: Any) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype).copy(order)
    restored = loads(pickle.dumps(values, protocol))
    assert isinstance(restored, np.ndarray)
    assert restored.dtype == values.dtype
    np.testing.assert_array_equal(restored, values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rename", [as_numpy_1, bytes], ids=["numpy 1", "numpy 2"])
def test_numpy_values_inside_an_object_array_become_plain(protocol: int, rename: Any) -> None:
    ids = np.arange(3, dtype=">i4")
    names = np.array(["a", "b"], object)
    values = object_array([[np.float64(0.5), np.int8(3), np.bool_(True)], [ids, names, np.str_("ü")]])
    restored = loads(rename(pickle.dumps(values, protocol)))
    assert isinstance(restored, np.ndarray)
    assert restored.tolist() == [[0.5, 3, True], [[0, 1, 2], ["a", "b"], "ü"]]
    assert [type(cell) for cell in restored.ravel()] == [float, int, bool, list, list, str]


def test_pandas_missing_value_becomes_none() -> None:
    restored = loads(pickle.dumps(np.array(["a", pd.NA], object)))
    assert isinstance(restored, np.ndarray)
    assert restored.tolist() == ["a", None]


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)))
@settings(max_examples=50, deadline=None)
def test_any_block_of_plain_cells_comes_back(rows: list[list[Any]]) -> None:
    restored = loads(pickle.dumps(object_array(rows)))
    assert isinstance(restored, np.ndarray)
    assert restored.tolist() == rows


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_planted_command_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "planted"
    values = np.array([Planted(os.system, f"touch {trace}")], object)
    with pytest.raises(SourceError, match=rf"{os.system.__module__}\.system.*nothing was run"):
        loads(pickle.dumps(values, protocol))
    assert not trace.exists()


@pytest.mark.parametrize(
    "function",
    [
        eval,
        getattr,
        bytes,
        subprocess.Popen,
        np.load,
        np.array,
        pd.read_pickle,
        pickle.loads,
        date,
        pd.Timestamp,
    ],
    ids=lambda function: function.__name__,
)
def test_any_other_name_is_refused(function: Any) -> None:
    with pytest.raises(SourceError, match="nothing was run"):
        loads(pickle.dumps(Planted(function, "0")))


def test_a_name_reached_through_an_allowed_one_is_refused() -> None:
    with pytest.raises(SourceError, match=r"numpy\.dtype\.__class__"):
        loads(b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("INST", b"(Vtrue\nios\nsystem\n."),
        ("OBJ", b"(cos\nsystem\nNo."),
        ("NEWOBJ", b"\x80\x02cnumpy\ndtype\n)\x81."),
        ("PERSID", b"Pid\n."),
        ("BINPERSID", b"NQ."),
        ("EXT1", b"\x80\x02\x82\x01."),
        ("EMPTY_DICT", b"\x80\x02}."),
        ("EMPTY_SET", b"\x80\x04\x8f."),
        ("DUP", b"N2."),
    ],
)
def test_instructions_beyond_plain_data_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(SourceError, match=f"instruction {name} .*nothing was run"):
        loads(data)


def array_state(shape: str, data: str) -> bytes:
    """A text pickle of an object array that declares and holds whatever the test says."""
    return (
        "cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
        f"(I1\n{shape}cnumpy\ndtype\n(VO8\nI00\nI01\ntRI00\n{data}tb."
    ).encode()


def test_the_handwritten_array_of_these_tests_is_sound() -> None:
    restored = loads(array_state("(I2\nt", "(lVa\naVb\na"))
    assert isinstance(restored, np.ndarray)
    assert restored.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ("(I1000000000000\nt", "(lVa\na"),
        ("(I1000000\nI1000000\nt", "(lVa\na"),
        ("(I-1\nt", "(l"),
        ("(Vwide\nt", "(l"),
        ("I5\n", "(l"),
        ("(I0\nt", "(lVa\na"),
        ("(I1\nt", "Va\n"),
        ("(I1\nt", "(l(l(l(laaa"),
        ("(I1\nt", "(l(ta"),
        ("(I1\nt", "(lcnumpy\ndtype\na"),
    ],
)
def test_an_array_must_hold_what_it_declares(shape: str, data: str) -> None:
    with pytest.raises(SourceError):
        loads(array_state(shape, data))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(2, [("a", "f8")]),
        np.zeros(2, "(2,)f8").view("V16"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "c16"),
        np.array([date(2022, 3, 28)], object),
        np.array([b"bytes"], object),
        object_array([[(1, 2)]]),
        object_array([[[[1]]]]),
        object_array([[np.zeros((2, 2))]]),
    ],
    ids=lambda values: str(values.tolist()),
)
def test_values_that_no_table_of_layers_holds_are_refused(values: np.ndarray) -> None:
    with pytest.raises(SourceError):
        loads(pickle.dumps(values))


@pytest.mark.parametrize("state", ["V<\nN(Va\ntN", "V<\nVf8\nNN", "Vx\nNNN"])
def test_a_number_type_with_fields_is_refused(state: str) -> None:
    with pytest.raises(SourceError, match="structured"):
        loads(f"cnumpy\ndtype\n(Vf8\ntR(I3\n{state}I-1\nI-1\nI0\ntb.".encode())


def test_an_array_without_a_type_is_refused() -> None:
    with pytest.raises(SourceError, match="without a NumPy type"):
        loads(b"cnumpy._core.multiarray\n_reconstruct\n)R(I1\n(I0\ntNI00\n(ltb.")


def test_a_huge_memo_index_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(SourceError, match="memo"):
        loads(b"\x80\x02Nr\xff\xff\xff\x7f.")


def test_a_function_takes_no_state() -> None:
    """One with a state could be made another, or to call itself without end."""
    with pytest.raises(SourceError, match="damaged"):
        loads(b"c_codecs\nencode\n(cnumpy\ndtype\n(Vf8\ntNNtb)R.")


def test_deep_nesting_is_refused_without_recursion() -> None:
    with pytest.raises(SourceError):
        loads(b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".")


@pytest.mark.parametrize("before", ["cnumpy\ndtype\n", "c_codecs\nencode\nVtext\n"], ids=["dtype", "encode"])
def test_a_value_that_is_endless_to_spell_is_refused_at_once(before: str) -> None:
    doubled = b"V2\n" + b"p0\ng0\n\x86" * 100
    arguments = b"\x85R." if "dtype" in before else b"\x86R."
    with pytest.raises(SourceError):
        loads(before.encode() + doubled + arguments)


def test_a_list_that_is_repeated_is_expanded_once() -> None:
    shared = list(range(1000))
    restored = loads(pickle.dumps(object_array([[shared]] * 1000)))
    assert isinstance(restored, np.ndarray)
    assert len({id(cell) for cell in restored.ravel()}) == 1


def test_an_array_that_contains_itself_is_refused() -> None:
    values = np.empty(1, object)
    values[0] = values
    with pytest.raises(SourceError):
        loads(pickle.dumps(values))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_an_error(protocol: int) -> None:
    data = pickle.dumps(object_array([["a", 1.5], [None, [1, 2]]]), protocol)
    for length in range(len(data)):
        with pytest.raises(SourceError):
            loads(data[:length])


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(PROTOCOLS))
@settings(max_examples=300, deadline=None)
def test_a_damaged_byte_gives_a_value_or_a_source_error(position: int, byte: int, protocol: int) -> None:
    data = bytearray(pickle.dumps(object_array([["a", np.float32(1)], [np.arange(3), [1, 2]]]), protocol))
    data[position % len(data)] = byte
    with contextlib.suppress(SourceError):
        loads(bytes(data))
