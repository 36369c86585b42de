"""Reads and checks the vectors of an export, ours or another system's."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from recbole_freqd.core.errors import CheckpointError, ConfigError, join_names, require
from recbole_freqd.core.files import file_hash, fingerprint, read_json, sha256

SIDES = ("users", "items")
MANIFEST = "manifest.json"
_READ = ("npz", "parquet")  # of both, the first is read
_LAYOUT = "users.npz and items.npz (arrays tokens and vectors), or users.parquet and items.parquet"
_NAMED = 3  # tokens that a message names
Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Exported:
    """Vectors with their tokens, row for row, without RecBole's padding.

    Attributes:
        tokens: (n_users,) and (n_items,) str, no token twice.
        vectors: (n_users, d) and (n_items, d) float32, finite; inner products rank the items.
        n_biases: How many of the last columns are biases, or the ones beside them.
        manifest: What our export says of them; None where there is none.
    """

    tokens: tuple[np.ndarray, np.ndarray]
    vectors: tuple[np.ndarray, np.ndarray]
    n_biases: int
    manifest: Optional[dict[str, Any]]

    @property
    def width(self) -> int:
        """Columns that are no biases."""
        return self.vectors[0].shape[1] - self.n_biases


def files_of_export(folder: Path, named_by: str) -> tuple[Path, Path]:
    """The files of users and of items.

    Args:
        folder: An export.
        named_by: The key or option that names it, for messages.

    Raises:
        ConfigError: They are not there, or are Parquet and pyarrow is missing.
    """
    for kind in _READ:
        users, items = (folder / f"{side}.{kind}" for side in SIDES)
        if users.is_file() and items.is_file():
            if kind == "parquet":
                require("pyarrow", "parquet", f"{named_by}: {users}")
            return users, items
    there = join_names(sorted(file.name for file in folder.glob("*"))) or "nothing"
    raise ConfigError(
        f"{named_by}: {folder} (from {Path.cwd()}) holds {there}; allowed: a folder with {_LAYOUT}."
    )


def hash_of_export(folder: Path, named_by: str) -> str:
    """A hash of what is read of an export."""
    return fingerprint(*(file_hash(file) for file in files_of_export(folder, named_by)))


def read_export(folder: Path, named_by: str) -> Exported:
    """Reads the vectors of a folder.

    Args:
        folder: With ``users`` and ``items`` as ``.npz`` or ``.parquet``, in float32, float16, or
            int8 with scales; and with a ``manifest.json``, unless another system has written it.
        named_by: The key or option that names it, for messages.

    Raises:
        ConfigError: The files are not there, or pyarrow is missing.
        CheckpointError: They are damaged, not those of the manifest, of two widths, or hold a token
            twice or what is no number.
    """
    files = files_of_export(folder, named_by)
    manifest = _manifest(folder, files)
    tables = [_read(file) for file in files]
    tokens = [_tokens(table, file) for table, file in zip(tables, files)]
    vectors = [
        _vectors(table, len(names), file) for table, names, file in zip(tables, tokens, files)
    ]
    widths = [rows.shape[1] for rows in vectors]
    if widths[0] != widths[1]:
        raise CheckpointError(
            f"{named_by}: {folder} holds user vectors of {widths[0]} numbers and item vectors of "
            f"{widths[1]}; allowed: one width for both, so that they have inner products."
        )
    of = manifest["biases"]["of"] if manifest else ()
    return Exported((tokens[0], tokens[1]), (vectors[0], vectors[1]), len(of), manifest)


def _manifest(folder: Path, files: tuple[Path, Path]) -> Optional[dict[str, Any]]:
    """What ``manifest.json`` says, where it is there; the files have to be those that it means."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_json(folder / MANIFEST)
    try:
        known, _ = manifest["sha256"], manifest["biases"]["of"]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{folder / MANIFEST} is no manifest of this package. Export again, or remove it if "
            "the vectors come from another system."
        ) from None
    for file in files:
        if known.get(file.name) != sha256(file):
            raise CheckpointError(
                f"{file} is not the file that {folder / MANIFEST} was written for: another "
                "export, or a copy, broke off there. Export again."
            )
    return manifest


def _read(path: Path) -> Table:
    """Arrays by name: ``tokens``, ``vectors``, and where there are some ``scales``, ``biases``."""
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read: {type(error).__name__}: {error}. Allowed: {_LAYOUT}, tokens "
            "as text without pickle. Export it again."
        ) from error


def _read_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as archive:
        table = {name: archive[name] for name in archive.files}
    _need(path, ("tokens", "vectors"), table)
    return table


def _read_parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    columns = pq.read_table(path)
    _need(path, ("token", "vector"), columns.column_names)
    table = {
        "tokens": np.asarray(columns["token"].to_pylist(), dtype=np.str_),
        "vectors": _rows(columns["vector"], path),
    }
    if "scale" in columns.column_names:
        table["scales"] = columns["scale"].to_numpy()
    if "biases" in columns.column_names:
        table["biases"] = _rows(columns["biases"], path)
    return table


def _rows(column: Any, path: Path) -> np.ndarray:
    """(n, d), a column of lists."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).unique().to_pylist()
    if len(lengths) > 1 or None in lengths:
        raise CheckpointError(
            f"{path}: vectors have {join_names(lengths)} numbers; allowed: the same number in "
            "every row."
        )
    values = pc.list_flatten(column).to_numpy()
    return values.reshape(len(column), -1)


def _need(path: Path, names: tuple[str, ...], there: Any) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise CheckpointError(
            f"{path} holds {join_names(there) or 'nothing'}; missing: {join_names(missing)}. "
            f"Allowed: {_LAYOUT}."
        )


def _tokens(table: Table, path: Path) -> np.ndarray:
    names = table["tokens"]
    if names.ndim != 1 or names.dtype.kind not in "Uiu" or not len(names):
        raise CheckpointError(
            f"{path}: tokens are {names.dtype} of shape {names.shape}; allowed: (n,) texts or "
            "whole numbers, one for each row."
        )
    names = names.astype(np.str_)
    distinct, counts = np.unique(names, return_counts=True)
    twice = distinct[counts > 1]
    if len(twice):
        raise CheckpointError(
            f"{path}: {len(twice)} tokens occur twice ({join_names(twice, _NAMED)}); allowed: one "
            "row each."
        )
    return names


def _vectors(table: Table, n_rows: int, path: Path) -> np.ndarray:
    """(n, d) float32, biases last."""
    rows = table["vectors"]
    if rows.ndim != 2 or len(rows) != n_rows or rows.dtype.kind not in "fi":
        raise CheckpointError(
            f"{path}: vectors are {rows.dtype} of shape {rows.shape}; allowed: ({n_rows}, d) "
            "numbers, a row for each token."
        )
    if rows.dtype.kind == "i" and table.get("scales", np.empty(0)).shape != (n_rows,):
        raise CheckpointError(
            f"{path}: vectors are {rows.dtype} without scales; allowed: float32, float16, or int8 "
            f"with ({n_rows},) scales."
        )
    rows = rows.astype(np.float32)
    if "scales" in table:
        rows *= table["scales"].astype(np.float32)[:, None]
    if "biases" in table:
        rows = np.concatenate([rows, table["biases"].astype(np.float32)], axis=1)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        names = table["tokens"][bad]
        raise CheckpointError(
            f"{path}: {bad.sum()} of {len(rows)} vectors hold NaN or infinite numbers "
            f"({join_names(names, _NAMED)}). Write them again without."
        )
    return rows
