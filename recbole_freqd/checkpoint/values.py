"""Tensors, arrays and sparse matrices of a checkpoint, made again only where they are sound.

NumPy, SciPy and torch believe what their own pickles say, and so does the machine: a tensor larger
than its storage, an array of pointers made from bytes or a column index beyond the matrix reads or
writes memory that is not its own. Here each is held against what is there before it is made.
"""

import datetime
import math
import ntpath
import posixpath
import re
import reprlib
import sys
from typing import Any, Callable, NamedTuple

import numpy as np
import torch

from recbole_freqd.core.errors import CheckpointError

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_DTYPE = re.compile(r"[biufcSUO]\d{1,9}")
_NATIVE_ORDER = ("<" if sys.byteorder == "little" else ">", "|", "=")
_WHOLE = (int, np.integer)
_NUMBERS = (int, float, complex, np.number, np.bool_)


class Storage(NamedTuple):
    """The bytes of one record, and the type their tensors have."""

    data: torch.Tensor  # uint8, on the device asked for
    dtype: torch.dtype

    @property
    def length(self) -> int:
        """Number of elements."""
        return self.data.numel() // torch.empty(0, dtype=self.dtype).element_size()


def _refuse_unless(condition: Any, what: str) -> None:
    """Raises CheckpointError unless the condition holds."""
    if not condition:
        raise CheckpointError(f"the file holds {what}, which no writer of checkpoints makes")


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= 32
        and all(type(size) is int and size >= 0 for size in value)
    )


# --- torch -----------------------------------------------------------------------------------
def tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> torch.Tensor:
    """``torch._utils._rebuild_tensor_v2``, within its storage.

    torch's own makes the storage as large as it is told, with what is in that memory.

    Raises:
        CheckpointError: The tensor does not lie in its storage, or has hooks.
    """
    _refuse_unless(
        type(storage) is Storage and not hooks and not metadata, "a tensor with code of its own"
    )
    _refuse_unless(
        _is_shape(size) and _is_shape(stride) and _is_shape((offset,)) and len(size) == len(stride),
        "a tensor without a shape",
    )
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride)) if count else 0
    _refuse_unless(
        count <= storage.length and (count == 0 or last < storage.length),
        f"a tensor of {count} numbers in a storage of {storage.length}",
    )
    made = torch.empty(0, dtype=storage.dtype, device=storage.data.device)
    made.set_(storage.data.untyped_storage(), offset, size, stride)
    return made.requires_grad_(requires_grad is True)


def parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> torch.nn.Parameter:
    """``torch._utils._rebuild_parameter``."""
    _refuse_unless(isinstance(data, torch.Tensor) and not hooks, "a parameter that is no tensor")
    return torch.nn.Parameter(data, requires_grad is True)


def torch_size(*sizes: Any) -> torch.Size:
    """``torch.Size``."""
    _refuse_unless(len(sizes) == 1 and _is_shape(sizes[0]), "a torch.Size of something else")
    return torch.Size(sizes[0])


def torch_device(*parts: Any) -> torch.device:
    """``torch.device``."""
    _refuse_unless(
        all(type(part) in (str, int) for part in parts), "a torch.device of something else"
    )
    return torch.device(*parts)


# --- the standard library ---------------------------------------------------------------------
def path_text(kind: str) -> Callable[..., str]:
    """``pathlib.PosixPath`` and its like, as the text of the path."""
    join = ntpath.join if "Windows" in kind else posixpath.join

    def text(*parts: Any) -> str:
        _refuse_unless(all(type(part) is str for part in parts), f"a {kind} of something else")
        return join(*parts) if parts else "."

    return text


def date(kind: str) -> Callable[..., Any]:
    """``datetime.date`` or ``datetime.datetime``, without a time zone."""
    size = {"date": 4, "datetime": 10}[kind]

    def made(*state: Any) -> Any:
        good = len(state) == 1 and type(state[0]) is bytes and len(state[0]) == size
        _refuse_unless(good, f"a {kind} that is not made of its bytes")
        try:
            return getattr(datetime, kind)(*state)
        except (TypeError, ValueError):
            raise CheckpointError(f"the file holds a {kind} that cannot be read as one") from None

    return made


# --- NumPy -----------------------------------------------------------------------------------
def dtype(kind: Any, *_flags: Any) -> np.dtype:
    """``numpy.dtype`` of plain numbers, text, or objects; a copy, as in the pickles of NumPy."""
    _refuse_unless(
        isinstance(kind, str) and _DTYPE.fullmatch(kind), f"a NumPy type {reprlib.repr(kind)}"
    )
    return np.dtype(kind)


def check_dtype_state(made: np.dtype, state: Any) -> None:
    """``dtype.__setstate__``, which is not called: it can turn bytes into pointers.

    Raises:
        CheckpointError: Anything but what a plain type of this machine's byte order has.
    """
    _refuse_unless(
        isinstance(state, tuple)
        and len(state) >= 8
        and state[1] in _NATIVE_ORDER
        and state[2:5] == (None, None, None),
        f"a NumPy type {made.str} with fields, or of another byte order",
    )


def scalar(kind: Any, data: Any = None) -> Any:
    """``numpy.core.multiarray.scalar`` of a number or text."""
    _refuse_unless(
        isinstance(kind, np.dtype)
        and kind.kind != "O"
        and isinstance(data, bytes)
        and len(data) == kind.itemsize,
        "a NumPy number that is not made of its bytes",
    )
    return np.frombuffer(data, kind)[0]


def empty_array(array_class: type) -> Callable[..., np.ndarray]:
    """``numpy.core.multiarray._reconstruct`` for arrays of this class."""

    def reconstruct(shape: Any, _kind: Any) -> np.ndarray:
        _refuse_unless(shape == (0,), "a NumPy array that is not empty before it is filled")
        return np.ndarray.__new__(array_class, (0,), "b")

    return reconstruct


def fill_array(made: np.ndarray, state: Any) -> None:
    """``ndarray.__setstate__``, once type, shape and content agree.

    Raises:
        CheckpointError: They do not.
    """
    _refuse_unless(isinstance(state, tuple) and len(state) == 5, "a NumPy array without a state")
    _, shape, kind, fortran, data = state
    _refuse_unless(_is_shape(shape) and isinstance(kind, np.dtype), "a NumPy array without a shape")
    _refuse_unless(
        len(shape) == 2 or type(made) is np.ndarray, "a NumPy matrix that has not two sides"
    )
    count = math.prod(shape)
    if kind.kind == "O":
        fits = type(data) is list and len(data) == count
    else:
        fits = type(data) is bytes and len(data) == count * kind.itemsize
    _refuse_unless(fits, f"a NumPy array of {count} values with another number of them")
    made.__setstate__((1, shape, kind, bool(fortran), data))  # type: ignore[arg-type]


# --- SciPy -----------------------------------------------------------------------------------
def fill_sparse(made: Any, state: Any) -> None:
    """The attributes of a sparse matrix; :func:`check_sparse` follows when all is loaded.

    What SciPy has found out about the order of the indices is left out: it finds out again.
    """
    names = {"_shape", "data", "indices", "indptr", "rows", "dtype", "maxprint", "_maxprint"}
    _refuse_unless(isinstance(state, dict), "a sparse matrix without a state")
    kept = {name: value for name, value in state.items() if "has_" not in str(name)}
    _refuse_unless(
        set(kept) <= names, f"a sparse matrix with {sorted(map(str, set(kept) - names))}"
    )
    made.__dict__.update(kept)


def check_sparse(made: Any) -> None:
    """Raises CheckpointError unless all indices of a sparse matrix lie within it.

    SciPy's compiled code looks nothing up twice: it would read and write beyond the arrays.
    """
    own = vars(made)
    shape = own.get("_shape")
    _refuse_unless(
        isinstance(shape, tuple)
        and len(shape) == 2
        and all(isinstance(side, _WHOLE) and side >= 0 for side in shape)
        and isinstance(own.get("maxprint", own.get("_maxprint", 50)), _WHOLE),
        "a sparse matrix without a shape",
    )
    _refuse_unless(_lists_fit(own, shape) if "rows" in own else _arrays_fit(made, own, shape),
           "a sparse matrix whose indices do not lie within it")  # fmt: skip


def _arrays_fit(made: Any, own: dict[str, Any], shape: tuple[int, int]) -> bool:
    """Whether indptr, indices and data of a CSR or CSC matrix agree with each other."""
    rows, columns = shape if made.format == "csr" else shape[::-1]
    arrays: list[Any] = [own.get(name) for name in ("indptr", "indices", "data")]
    if not all(type(array) is np.ndarray and array.ndim == 1 for array in arrays):
        return False
    indptr, indices, data = arrays
    if not (indptr.dtype.kind == indices.dtype.kind == "i" and data.dtype.kind in "biufc"):
        return False
    if len(indptr) != rows + 1 or indptr[0] != 0 or np.any(np.diff(indptr) < 0):
        return False
    used = indices[: indptr[-1]]
    return len(used) == indptr[-1] <= len(data) and (
        len(used) == 0 or (used.min() >= 0 and used.max() < columns)
    )


def _lists_fit(own: dict[str, Any], shape: tuple[int, int]) -> bool:
    """Whether the rows of a LIL matrix are lists of column ids, as many as there are values."""
    rows: Any = own["rows"]
    data: Any = own.get("data")
    for lists in (rows, data):
        if type(lists) is not np.ndarray or lists.dtype != object or lists.shape != shape[:1]:
            return False
    return isinstance(own.get("dtype"), np.dtype) and all(
        type(row) is list
        and type(values) is list
        and len(row) == len(values)
        and all(issubclass(kind, _WHOLE) for kind in set(map(type, row)))
        and all(issubclass(kind, _NUMBERS) for kind in set(map(type, values)))
        and (not row or (min(row) >= 0 and max(row) < shape[1]))
        for row, values in zip(rows, data)
    )  # fmt: skip
