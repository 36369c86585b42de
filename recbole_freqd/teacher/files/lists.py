"""Reads and checks files of lists, ours or another system's, and turns them into scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_freqd.core.errors import CheckpointError, join_names
from recbole_freqd.core.pair_files import Columns, check_columns, read_pairs

_NAMED = 3  # examples in a message
_KEYS = (
    " Needed are user, item, and score or rank; teacher.lists_user, lists_item, lists_score and "
    "lists_rank say what they are called."
)


@dataclass(frozen=True)
class Lists:
    """Recommended pairs: users, items and scores, as arrays of one length.

    Attributes:
        users, items: (m,) and (k,) str, the distinct tokens.
        user, item: (n,) int64, places in ``users`` and ``items``.
        scores: (n,) float64; of ranks r without scores, -log(1 + r).
        floors: (m,) float64, for each user the score of what is not in the list: one step below the
            last, that of the next rank, or the mean step of the user's scores.
        metadata: What ``recommend`` wrote beside its lists; nothing of other systems.
    """

    users: np.ndarray
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    scores: np.ndarray
    floors: np.ndarray
    metadata: dict[str, Any]


def read_lists(path: Path, columns: Columns, named_by: str) -> Lists:
    """Reads and checks a file of lists.

    Args:
        path: CSV with a line of names, or Parquet.
        columns: Their names. Scores are read where there are some, else ranks.
        named_by: The key that names the file, for messages.

    Raises:
        ConfigError: It is not there, of another kind, lacks a column, or pyarrow is missing.
        CheckpointError: It cannot be read; a pair is there twice; a score is no number; ranks are
            not 1, 2, 3, ... for a user.
    """
    import pandas as pd

    table, metadata = read_pairs(path, columns, named_by, _KEYS)
    by_score = columns.score in table
    if not by_score:
        check_columns(path, table, (columns.rank,), named_by, _KEYS)
    user, users = pd.factorize(table[columns.user])
    item, items = pd.factorize(table[columns.item])
    _check_repeats(path, user * len(items) + item, table, columns)
    values = _numbers(path, table, columns.score if by_score else columns.rank)
    if by_score:
        scores, floors = values, _below_scores(user, values)
    else:
        _check_ranks(path, user, values, users)
        scores, floors = -np.log1p(values), -np.log(2.0 + np.bincount(user))
    names = [np.asarray(side, dtype=np.str_) for side in (users, items)]
    return Lists(names[0], names[1], user, item, scores, floors, metadata)


def _numbers(path: Path, table: Any, name: str) -> np.ndarray:
    """(n,) float64, a column of scores or ranks."""
    import pandas as pd

    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise CheckpointError(
            f"{path}: {bad.sum()} of {len(values)} numbers in {name} are NaN, infinite or none "
            f"({join_names(table[name][bad].astype(str), _NAMED)}). Leave these pairs out."
        )
    return values


def _check_repeats(path: Path, codes: np.ndarray, table: Any, columns: Columns) -> None:
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    if (counts > 1).any():
        place = int(first[counts > 1].min())
        pair = " and ".join(str(table[name].iloc[place]) for name in (columns.user, columns.item))
        raise CheckpointError(
            f"{path}: {(counts > 1).sum()} pairs are there twice, {pair} among them; allowed: each "
            "item once in the list of a user."
        )


def _check_ranks(path: Path, user: np.ndarray, ranks: np.ndarray, users: Any) -> None:
    """Raises unless the ranks of every user are 1, 2, 3, ... without gaps."""
    order = np.lexsort((ranks, user))
    sizes = np.bincount(user)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    wrong = ranks[order] != np.arange(len(ranks)) - starts + 1
    if wrong.any():
        one = user[order][wrong][0]
        own = np.sort(ranks[user == one])
        raise CheckpointError(
            f"{path}: ranks have gaps or repeats for {len(np.unique(user[order][wrong]))} users: "
            f"those of {users[one]} are {join_names((f'{rank:g}' for rank in own), 8)}; allowed: "
            "1, 2, 3, ... for every user. Write whole lists, or scores instead."
        )


def _below_scores(user: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(m,), a step below the last score of every user."""
    sizes = np.bincount(user)
    highest, lowest = np.full(len(sizes), -np.inf), np.full(len(sizes), np.inf)
    np.maximum.at(highest, user, scores)
    np.minimum.at(lowest, user, scores)
    steps = (highest - lowest) / np.maximum(sizes - 1, 1)
    usual = float(steps[steps > 0].mean()) if (steps > 0).any() else 1.0
    return lowest - np.where(steps > 0, steps, usual)
