"""Files with a line for each pair of a user and an item, CSV or Parquet, and their metadata."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import CheckpointError, ConfigError, join_names, require
from recbole_freqd.core.files import read_json

METADATA = "recbole_freqd"  # the key of Parquet's metadata
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        user, item: The tokens. score: Higher is better. rank: 1 is the best.
    """

    user: str
    item: str
    score: str = "score"
    rank: str = "rank"

    @property
    def all(self) -> tuple[str, str, str, str]:
        """In the order of a file."""
        return self.user, self.item, self.rank, self.score


def metadata_file(path: Path) -> Path:
    """Where the metadata of a CSV file lies."""
    return path.with_name(f"{path.name}.json")


def read_pairs(
    path: Path, columns: Columns, named_by: str, remedy: str = ""
) -> tuple[Any, dict[str, Any]]:
    """Reads a file of pairs; what is in CSV is text, so that the token ``NA`` stays one.

    Args:
        path: CSV with a line of names, or Parquet.
        columns: Names of the two that must be there; their values become text.
        named_by: The key or option that names the file, for messages.
        remedy: What to do where a column is missing, as a sentence with a blank before it.

    Returns:
        A table of pandas, and the metadata: nothing where there is none.

    Raises:
        ConfigError: It is not there, is of another kind, lacks a column, or pyarrow is missing.
        CheckpointError: It cannot be read, has no line, or a token is empty.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ConfigError(
            f"{named_by}: got {path} (from {Path.cwd()}); allowed: a file that is there and whose "
            f"name ends in {' or '.join(SUFFIXES)}."
        )
    if path.suffix == ".parquet":
        require("pyarrow", "parquet", f"{named_by}: {path}")
    try:
        table, metadata = (_parquet if path.suffix == ".parquet" else _csv)(path)
    except (OSError, ValueError) as error:  # those of pandas and pyarrow are ValueErrors
        raise CheckpointError(f"{path} cannot be read: {error}. Write it again.") from error
    names = (columns.user, columns.item)
    check_columns(path, table, names, named_by, remedy)
    for name in names:
        table[name] = table[name].fillna("").astype(str)
    empty = [name for name in names if (table[name] == "").any()]
    if empty or table.empty:
        words = f"{join_names(empty)} is empty in some lines" if empty else "there is no line"
        raise CheckpointError(f"{path}: {words}. Write it again.")
    return table, metadata


def check_columns(path: Path, table: Any, names: Any, named_by: str, remedy: str = "") -> None:
    """Raises ConfigError where a column is missing."""
    missing = [name for name in names if name not in table]
    if missing:
        raise ConfigError(
            f"{named_by}: {path} has the columns {join_names(table.columns)}; missing: "
            f"{join_names(missing)}.{remedy}"
        )


def _csv(path: Path) -> tuple[Any, dict[str, Any]]:
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    beside = metadata_file(path)
    return table, read_json(beside) if beside.is_file() else {}


def _parquet(path: Path) -> tuple[Any, dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    stored = (table.schema.metadata or {}).get(METADATA.encode())
    return table.to_pandas(), json.loads(stored) if stored else {}
