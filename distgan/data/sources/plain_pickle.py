"""Reads pickles of plain data: dicts, lists, numbers, text, bytes and arrays of bytes, as in CIFAR's Python batches.

A pickle is a program that may call anything it names. Here only the names by which NumPy's arrays and Python's bytes
are pickled have a meaning, and they mean the harmless classes of this file. Other names are refused, not imported.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from distgan.errors import UserError

_NOT_PLAIN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, OSError, struct.error,
)  # fmt: skip


class PickledArray:
    """A pickled NumPy array."""

    def __init__(self, *arguments: object) -> None:
        self._state: Any = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def unsigned_bytes(self) -> NDArray[np.uint8]:
        """The array, of dtype uint8. Raises ValueError or TypeError if it is another kind of array."""
        _, shape, dtype, in_columns, content = self._state
        if not isinstance(dtype, _PickledType) or dtype.name != "u1" or not isinstance(content, bytes):
            raise ValueError("not an array of unsigned bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if in_columns else "C")


class _PickledType:
    """A pickled dtype."""

    def __init__(self, name: object = None, *arguments: object) -> None:
        self.name = name.decode(errors="replace") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Ignores the byte order, which single bytes do not have."""


class _PickledBytes:
    """Replaces `codecs.encode`, by which Python 3 pickles bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise ValueError("not the bytes of a text in Latin-1")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise TypeError


_CLASSES: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _PickledBytes,
}


def _with_text_keys(action: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """The action, refused unless the keys are text: hashing deeply nested tuples crashes the interpreter."""

    def checked(unpickler: Any) -> None:
        if not all(isinstance(key, str | bytes) for key in unpickler.stack[keys]):
            raise pickle.UnpicklingError("a key that is no text")
        action(unpickler)

    return checked


# Instructions that plain data does not need: they call, import, hash, or allocate any length.
_NOT_NEEDED = (
    pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.PERSID + pickle.BINPERSID + pickle.EXT1
    + pickle.EXT2 + pickle.EXT4 + pickle.ADDITEMS + pickle.FROZENSET + pickle.BYTEARRAY8 + pickle.NEXT_BUFFER
)  # fmt: skip

# Instructions that fill a dict, and the place of the keys on the stack.
_KEYS = {pickle.SETITEM[0]: slice(-2, -1), pickle.SETITEMS[0]: slice(0, None, 2), pickle.DICT[0]: slice(0, None, 2)}


class _PlainUnpickler(pickle._Unpickler):
    """Python's unpickler in Python, which unlike the one in C takes no more memory than the pickle has bytes."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: _with_text_keys(action, _KEYS[code]) if code in _KEYS else action
        for code, action in pickle._Unpickler.dispatch.items()
        if code not in _NOT_NEEDED
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _CLASSES:
            raise UserError(f"it names {f'{module}.{name}':.60}, which plain data does not need")
        return _CLASSES[module, name]


def load_plain_dict(file: BinaryIO, where: str) -> dict[str, Any]:
    """The pickled dict, its keys as text; its arrays are `PickledArray`.

    Raises UserError, naming `where`, for a truncated file and for anything but a dict of plain data.
    """
    try:
        content = _PlainUnpickler(file, encoding="bytes").load()
    except UserError as error:
        raise UserError(f"{where}: {error}; refused, since it could run code: get the file again") from None
    except _NOT_PLAIN as error:
        raise UserError(
            f"{where}: not a whole pickle of plain data: {str(error) or type(error).__name__}; get it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no table; get the file again")
    return {key.decode(errors="replace") if isinstance(key, bytes) else key: content[key] for key in content}
