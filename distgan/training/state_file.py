"""Reads the state file of a checkpoint safely: names, shapes and dtypes first, so they can be compared before use.

`torch.save` writes a zip archive with a pickle that describes the tensors, and with their bytes. An untrusted file may
unpack to any size, call functions, or describe tensors that reach beyond their bytes. This reader understands plain
tensors only, rejects compression, and checks that each tensor lies within its bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

# What a damaged or hostile archive or pickle may raise.
_UNREADABLE = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, LookupError,
    AttributeError, AssertionError, ArithmeticError, MemoryError, NotImplementedError, RuntimeError, OSError,
    struct.error,
)  # fmt: skip

_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """Shape, dtype and stride of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        return cls(tuple(tensor.shape), tensor.dtype, tensor.stride())

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.shape}"

    @property
    def is_dense(self) -> bool:
        """Whether its elements, in some order, are contiguous."""
        expected = 1
        for stride, size in sorted(zip(self.stride, self.shape, strict=True)):
            if size == 1:
                continue
            if stride != expected:
                return False
            expected *= size
        return True


@dataclass(frozen=True)
class _Storage:
    """A file of the archive, as elements of a dtype."""

    name: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class _StoredTensor(TensorSpec):
    storage: _Storage
    offset: int


def specs_of(tree: Any) -> Any:
    """Nested dictionaries of tensors, each tensor replaced by its `TensorSpec`."""
    if isinstance(tree, Mapping):
        return {key: specs_of(value) for key, value in tree.items()}
    return TensorSpec.of(tree) if isinstance(tree, Tensor) else tree


def difference(found: Any, expected: Any, name: str = "") -> str | None:
    """The first difference of a tree of `TensorSpec` from the expected one, in words.

    Where the expected tree has neither a dictionary nor a tensor, anything is accepted. Strides may differ between
    memory formats, but no elements may overlap or have gaps between them.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return f"{name or 'its content'} is no dictionary of tensors"
        for key in [*expected, *found]:
            path = f"{name}.{key}" if name else str(key)
            if key not in found:
                return f"{path} is missing"
            if key not in expected:
                return f"{path:.100} does not belong there"
            inner = difference(found[key], expected[key], path)
            if inner is not None:
                return inner
    elif isinstance(expected, TensorSpec):
        if not isinstance(found, TensorSpec):
            return f"{name} is no tensor"
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            return f"{name} is {found} there and {expected} here"
        if not found.is_dense and found.stride != expected.stride:
            return f"{name} has strides {found.stride}, so its elements overlap or have gaps"
    return None


def tensor_bytes(tree: Any) -> int:
    """Bytes of all tensors of a tree of `TensorSpec`."""
    if isinstance(tree, Mapping):
        return sum(tensor_bytes(value) for value in tree.values())
    return torch.Size(tree.shape).numel() * tree.dtype.itemsize if isinstance(tree, TensorSpec) else 0


class StateFile:
    """The content of a `state.pt`, with tensors still unread.

    Attributes:
        specs: nested dictionaries of `TensorSpec` and plain values.
    """

    def __init__(self, content: bytes) -> None:
        """Raises ValueError, with the reason, for anything but a state of plain tensors."""
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
            entries = self._archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its archive is compressed")
            if sum(entry.file_size for entry in entries) > len(content):
                raise ValueError("its archive unpacks to more than it holds")
            self._sizes = {entry.filename: entry.file_size for entry in entries}
            (pickled,) = (name for name in self._sizes if name.endswith("/data.pkl"))
            self._folder = pickled.removesuffix("data.pkl")
            self._used: set[str] = set()
            if self._archive.read(f"{self._folder}byteorder") != b"little":
                raise ValueError("its numbers are not little-endian")
            self.specs: Any = _NamesUnpickler(self._archive.read(pickled), self._stored).load()
            if not isinstance(self.specs, dict):
                raise ValueError("it holds no dictionary of tensors")
            _check_once(self.specs, set())
        except _UNREADABLE as error:
            reason = " ".join(str(error).split()) if isinstance(error, ValueError | pickle.UnpicklingError) else ""
            raise ValueError(reason[:120] or "it is no complete file of tensors") from None

    def tensors(self) -> Any:
        """`specs` with tensors on the CPU in their place. Raises ValueError if their bytes are damaged."""
        try:
            return self._built(self.specs)
        except _UNREADABLE:
            raise ValueError("the bytes of its tensors are damaged") from None

    def _built(self, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: self._built(value) for key, value in tree.items()}
        if not isinstance(tree, _StoredTensor):
            return tree
        if 0 in tree.shape:
            return torch.empty_strided(tree.shape, tree.stride, dtype=tree.dtype)
        data = bytearray(self._archive.read(tree.storage.name))
        return torch.frombuffer(data, dtype=tree.dtype).as_strided(tree.shape, tree.stride, tree.offset)

    def _stored(self, key: str, dtype: torch.dtype, elements: int) -> _Storage:
        name = f"{self._folder}data/{key}"
        if name in self._used:
            raise ValueError("two tensors share their bytes")
        self._used.add(name)
        if self._sizes[name] != elements * dtype.itemsize:
            raise ValueError(f"{elements} elements cannot be {self._sizes[name]} bytes")
        return _Storage(name, dtype, elements)


def _check_once(tree: Any, seen: set[int]) -> None:
    """Raises ValueError for a dictionary or tensor in two places: nested, its copies could exhaust the memory."""
    if isinstance(tree, Mapping | _StoredTensor):
        if id(tree) in seen:
            raise ValueError("a part of it is in two places")
        seen.add(id(tree))
    for inner in tree.values() if isinstance(tree, Mapping) else ():
        _check_once(inner, seen)


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> _StoredTensor:
    """Replaces `torch._utils._rebuild_tensor_v2`. Raises ValueError for a tensor beyond its storage."""
    sizes = [offset, *shape, *stride] if isinstance(shape, tuple) and isinstance(stride, tuple) else [None]
    if not isinstance(storage, _Storage) or not all(type(size) is int and 0 <= size < 2**48 for size in sizes):
        raise ValueError("a tensor has an invalid description")
    assert isinstance(offset, int)
    assert isinstance(shape, tuple)
    assert isinstance(stride, tuple)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) != storage.elements or (0 not in shape and last >= storage.elements):
        raise ValueError("a tensor is not all of its bytes, or reaches beyond them")
    return _StoredTensor(shape, storage.dtype, stride, storage, offset)


Instruction = Callable[[Any], None]


def _if(allowed: Callable[[list[Any]], bool], action: Instruction) -> Instruction:
    """An instruction that checks the unpickler's stack first."""

    def checked(unpickler: Any) -> None:
        if not allowed(unpickler.stack):
            raise pickle.UnpicklingError("it holds more than dictionaries of plain tensors")
        action(unpickler)

    return checked


def _plain_keys(keys: slice) -> Callable[[list[Any]], bool]:
    """Whether keys on the stack are strings or integers: hashing deeply nested tuples crashes the interpreter."""
    return lambda stack: all(type(key) in {str, int} for key in stack[keys])


def _makes_tensor_or_dict(stack: list[Any]) -> bool:
    function, arguments = stack[-2:]
    return type(arguments) is tuple and (function is _tensor or (function is OrderedDict and not arguments))


_ALLOWED: dict[bytes, Callable[[list[Any]], bool]] = {
    pickle.SETITEM: _plain_keys(slice(-2, -1)),
    pickle.SETITEMS: _plain_keys(slice(0, None, 2)),
    pickle.DICT: _plain_keys(slice(0, None, 2)),
    pickle.REDUCE: _makes_tensor_or_dict,
}

# Instructions that call, import, hash or allocate anything. Tensors are saved without them.
_NOT_NEEDED = (
    pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX + pickle.PERSID + pickle.EXT1 + pickle.EXT2
    + pickle.EXT4 + pickle.BUILD + pickle.EMPTY_SET + pickle.ADDITEMS + pickle.FROZENSET + pickle.BYTEARRAY8
    + pickle.NEXT_BUFFER
)  # fmt: skip


class _NamesUnpickler(pickle._Unpickler):
    """Python's own unpickler, restricted to dictionaries, descriptions of tensors, and dtypes of storages."""

    dispatch: ClassVar[dict[int, Instruction]] = {
        code: _if(_ALLOWED[bytes([code])], action) if bytes([code]) in _ALLOWED else action
        for code, action in pickle._Unpickler.dispatch.items()
        if code not in _NOT_NEEDED
    }

    def __init__(self, content: bytes, stored: Callable[[str, torch.dtype, int], _Storage]) -> None:
        super().__init__(io.BytesIO(content))
        self._stored = stored

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {f'{module}.{name}':.60}, which plain tensors do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, elements = pid
        if not isinstance(dtype, torch.dtype) or type(key) is not str or type(elements) is not int or elements < 0:
            raise ValueError("a tensor's bytes have an invalid description")
        return self._stored(key, dtype, elements)
