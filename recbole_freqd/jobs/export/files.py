"""Tables of vectors with their names, written block by block: NumPy's .npz, and Parquet."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Callable

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, require
from recbole_freqd.core.files import PathLike, replacing
from recbole_freqd.core.quantise import Int8Rows

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


@dataclass(frozen=True)
class Form:
    """The form in which vectors are stored.

    Attributes:
        width: Columns, those of biases included.
        dtype: ``float32``, ``float16`` or ``int8``. In int8 every row has a scale.
        exact_columns: The last columns, which in int8 stay float32 and beside the others.
    """

    width: int
    dtype: np.dtype
    exact_columns: int = 0

    @property
    def rounded_columns(self) -> int:
        """Columns that are stored in ``dtype``."""
        return self.width - (self.exact_columns if self.dtype == np.int8 else 0)

    def split(self, block: np.ndarray) -> list[np.ndarray]:
        """Rows (b, width) as they are stored: vectors, in int8 scales, and biases if any."""
        vectors, biases = np.split(block, [self.rounded_columns], axis=1)
        if self.dtype != np.int8:
            return [np.ascontiguousarray(vectors, dtype=self.dtype)]
        rows = Int8Rows.of(torch.from_numpy(vectors))
        parts = [rows.values.numpy(), rows.scales.numpy()]
        return [*parts, biases.astype(np.float32)] if self.exact_columns else parts


@contextmanager
def open_table(path: PathLike, kind: str, tokens: np.ndarray, form: Form) -> Iterator[WriteBlock]:
    """Yields a function that takes the next rows; the file gets its name at the end.

    Args:
        path: The file.
        kind: One of ``FORMATS``.
        tokens: (n,) str, the name of every row.
        form: How the rows (b, width) that come are stored.

    Raises:
        CheckpointError: It cannot be written; what stood at ``path`` is untouched.
    """
    opened = _npz if kind == "npz" else _parquet
    with replacing(path) as temporary, opened(temporary, tokens, form) as write:
        yield write


@contextmanager
def _npz(path: str, tokens: np.ndarray, form: Form) -> Iterator[WriteBlock]:
    """``tokens`` (n,) of fixed width and ``vectors`` (n, width), as :func:`numpy.load` reads them.

    Of int8 also ``scales`` (n,) and, where there are some, ``biases`` (n, c). It needs no
    ``allow_pickle``, and equal content gives equal files.
    """
    beside: list[list[np.ndarray]] = []

    def write(block: np.ndarray) -> None:
        vectors, *others = form.split(block)
        member.write(vectors.tobytes())
        beside.append(others)

    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("tokens.npy", "w", force_zip64=True) as member:
            _write_header(member, tokens.dtype, tokens.shape)
            for start in range(0, len(tokens), _TOKENS_AT_ONCE):
                member.write(tokens[start : start + _TOKENS_AT_ONCE].tobytes())
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            _write_header(member, form.dtype, (len(tokens), form.rounded_columns))
            yield write
        for name, parts in zip(("scales", "biases"), zip(*beside)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.concatenate(parts), version=(1, 0))


def _write_header(member: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    head = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(member, head)


@contextmanager
def _parquet(path: str, tokens: np.ndarray, form: Form) -> Iterator[WriteBlock]:
    """Columns ``token`` (string) and ``vector`` (a list of fixed size); a row group for a block.

    Of int8 also ``scale`` and, where there are some, ``biases`` (a list of fixed size).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    value = pa.from_numpy_dtype(form.dtype)
    fields = [("token", pa.string()), ("vector", pa.list_(value, form.rounded_columns))]
    if form.dtype == np.int8:
        fields.append(("scale", pa.float32()))
        if form.exact_columns:
            fields.append(("biases", pa.list_(pa.float32(), form.exact_columns)))
    schema, written = pa.schema(fields), 0

    def column(values: np.ndarray) -> Any:
        flat = pa.array(values.reshape(-1))
        if values.ndim == 1:
            return flat
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:

        def write(block: np.ndarray) -> None:
            nonlocal written
            names = pa.array(tokens[written : written + len(block)].tolist())
            stored = map(column, form.split(block))
            writer.write_table(pa.table([names, *stored], schema=schema))
            written += len(block)

        yield write


def write_csr(path: PathLike, matrix: sp.csr_array) -> None:
    """A sparse matrix as ``scipy.sparse.load_npz`` reads it, and NumPy without pickle."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sp.save_npz(file, matrix, compressed=False)
