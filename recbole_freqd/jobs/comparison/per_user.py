"""Keeps the metrics of every single user; RecBole's evaluator gives only their means."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recbole_freqd.compat import Patches
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import write_atomically
from recbole_freqd.features.data import tokens
from recbole_freqd.jobs.comparison.significance import PerUser


@contextmanager
def recording() -> Iterator[dict[str, np.ndarray]]:
    """While open, keeps the values that RecBole averages over users.

    All its metrics over top lists average in one place, ``TopkMetric.topk_result``. Use it in one
    process only: with several, each sees only its own users.

    Yields:
        By metric (``ndcg@10``), refilled by every evaluation: (users,) float32 in the order of the
        loader.
    """
    from recbole.evaluator.base_metric import TopkMetric

    average = TopkMetric.topk_result
    kept: dict[str, np.ndarray] = {}

    def topk_result(self: Any, metric: str, value: np.ndarray) -> dict[str, float]:
        for k in self.topk:
            kept[f"{metric}@{k}"] = value[:, k - 1].astype(np.float32)
        return average(self, metric, value)

    patches = Patches()
    patches.set(TopkMetric, "topk_result", topk_result)
    try:
        yield kept
    finally:
        patches.undo()


def by_token(loader: Any, values: np.ndarray) -> PerUser:
    """The users of an evaluation loader, sorted by name, and their values.

    Args:
        loader: RecBole's valid or test loader.
        values: (users,) in the loader's order.
    """
    names, _ = tokens(loader._dataset)
    users = np.asarray(names, dtype=str)[np.asarray(loader.uid_list)]
    order = np.argsort(users)
    return users[order], values[order]


def save_users(path: Path, users: PerUser) -> None:
    """Writes users and values to an ``.npz``, whole or not at all.

    Raises:
        CheckpointError: It cannot be written.
    """
    names, values = users

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:  # savez would add .npz to the name
            np.savez_compressed(file, users=np.char.encode(names, "utf-8"), values=values)

    write_atomically(path, write)


def load_users(path: Path) -> PerUser:
    """Reads what :func:`save_users` wrote.

    Raises:
        CheckpointError: It is unreadable or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return np.char.decode(file["users"], "utf-8"), file["values"]
    except Exception as error:  # numpy and zipfile raise half a dozen kinds for a damaged file
        raise CheckpointError(
            f"{path} cannot be read: {error}. Delete it, and the comparison repeats that run."
        ) from error
