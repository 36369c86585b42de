"""Files of lists: a line for each user and item, written as they are made, whole or not at all."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import numpy as np

from recbole_freqd.core.errors import ConfigError, require
from recbole_freqd.core.files import replacing, write_json
from recbole_freqd.core.pair_files import METADATA, SUFFIXES, Columns, metadata_file

WriteLists = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def check_suffix(path: Path) -> None:
    """Raises ConfigError unless the name says a format that can be written here."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"--out: got {path}; allowed: a name that ends in {' or '.join(SUFFIXES)}."
        )
    if path.suffix == ".parquet":
        require("pyarrow", "parquet", "--out lists.parquet")


@contextmanager
def open_lists(path: Path, columns: Columns, metadata: dict[str, Any]) -> Iterator[WriteLists]:
    """Yields a function that takes the lists of the next users; the file gets its name at the end.

    What is given to it: names of users (b,) str, names of items (b, k) str, best first, and scores
    (b, k) float32, -inf where a user has fewer items.

    Args:
        path: Its suffix says the format.
        columns: Names of the columns.
        metadata: Kept in Parquet's own metadata, beside a CSV file as ``<name>.csv.json``.

    Raises:
        CheckpointError: It cannot be written; what stood at ``path`` is untouched.
    """
    opened = _parquet if path.suffix == ".parquet" else _csv
    with replacing(path) as temporary, opened(temporary, columns, metadata) as write:
        yield lambda users, items, scores: write(*_flat(users, items, scores))
    if path.suffix == ".csv":
        write_json(metadata_file(path), metadata)


def _flat(users: np.ndarray, items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """A line for each item that there is: user, item, rank from 1, score."""
    there = ~np.isneginf(scores)
    rank = np.broadcast_to(np.arange(1, items.shape[1] + 1, dtype=np.int32), items.shape)
    owner = np.broadcast_to(users[:, None], items.shape)
    return owner[there], items[there], rank[there], scores[there]


@contextmanager
def _csv(path: str, columns: Columns, metadata: dict[str, Any]) -> Iterator[Callable[..., None]]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.all)
        yield lambda *lines: writer.writerows(zip(*(values.tolist() for values in lines)))


@contextmanager
def _parquet(
    path: str, columns: Columns, metadata: dict[str, Any]
) -> Iterator[Callable[..., None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.string(), pa.int32(), pa.float32())
    schema = pa.schema(list(zip(columns.all, kinds)), metadata={METADATA: json.dumps(metadata)})
    with pq.ParquetWriter(path, schema) as writer:

        def write(*lines: np.ndarray) -> None:
            arrays = [pa.array(values, type=kind) for values, kind in zip(lines, kinds)]
            writer.write_table(pa.table(arrays, schema=schema))

        yield write
