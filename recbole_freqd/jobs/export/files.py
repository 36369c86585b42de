"""Tables of vectors with their names, written block by block: NumPy's .npz, and Parquet."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Callable

import numpy as np
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError, require
from recbole_freqd.core.files import PathLike, replacing

FORMATS = ("npz", "parquet")
_TOKENS_AT_ONCE = 65536
WriteBlock = Callable[[np.ndarray], None]


def check_formats(formats: Any) -> tuple[str, ...]:
    """The formats asked for, each once.

    Args:
        formats: Names, or one string with commas between them.

    Raises:
        ConfigError: An unknown name, none at all, or Parquet where pyarrow is not installed.
    """
    names = formats.split(",") if isinstance(formats, str) else list(formats)
    names = list(dict.fromkeys(str(name).strip().lower() for name in names))
    if not names or not set(names) <= set(FORMATS):
        raise ConfigError(
            f"--format: got {formats!r}; allowed: {', '.join(FORMATS)}, or both with a comma."
        )
    if "parquet" in names:
        require("pyarrow", "parquet", "--format parquet")
    return tuple(names)


@contextmanager
def open_table(
    path: PathLike, kind: str, tokens: np.ndarray, width: int, dtype: np.dtype
) -> Iterator[WriteBlock]:
    """Yields what takes the next rows; the file has its name when all of them are written.

    Args:
        path: The file.
        kind: One of ``FORMATS``.
        tokens: (n,) str, the name of every row.
        width: Dimensions of a vector.
        dtype: ``float32`` or ``float16``.

    Raises:
        CheckpointError: It cannot be written; what stood at ``path`` is untouched.
    """
    opened = _npz if kind == "npz" else _parquet
    with replacing(path) as temporary, opened(temporary, tokens, width, dtype) as write:
        yield write


@contextmanager
def _npz(path: str, tokens: np.ndarray, width: int, dtype: np.dtype) -> Iterator[WriteBlock]:
    """``tokens`` (n,) of fixed width and ``vectors`` (n, width), as :func:`numpy.load` reads them.

    It needs no ``allow_pickle``, and equal content gives equal files.
    """
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("tokens.npy", "w", force_zip64=True) as member:
            _write_header(member, tokens.dtype, tokens.shape)
            for start in range(0, len(tokens), _TOKENS_AT_ONCE):
                member.write(tokens[start : start + _TOKENS_AT_ONCE].tobytes())
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            _write_header(member, dtype, (len(tokens), width))
            yield lambda block: _write(member, block, dtype)


def _write_header(member: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    head = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(member, head)


def _write(member: IO[bytes], block: np.ndarray, dtype: np.dtype) -> None:
    member.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


@contextmanager
def _parquet(path: str, tokens: np.ndarray, width: int, dtype: np.dtype) -> Iterator[WriteBlock]:
    """Columns ``token`` (string) and ``vector`` (a list of fixed size); a row group for a block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    value = pa.from_numpy_dtype(dtype)
    schema = pa.schema([("token", pa.string()), ("vector", pa.list_(value, width))])
    written = 0
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:

        def write(block: np.ndarray) -> None:
            nonlocal written
            names = tokens[written : written + len(block)]
            flat = pa.array(np.ascontiguousarray(block, dtype=dtype).reshape(-1), type=value)
            vectors = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table([pa.array(names.tolist()), vectors], schema=schema))
            written += len(block)

        yield write


def write_csr(path: PathLike, matrix: sp.csr_array) -> None:
    """A sparse matrix as ``scipy.sparse.load_npz`` reads it, and NumPy without pickle."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sp.save_npz(file, matrix, compressed=False)
