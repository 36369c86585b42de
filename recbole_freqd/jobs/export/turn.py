"""Turns a new model's vectors onto those of an older export; the scores stay the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.vector_files import SIDES, read_export
from recbole_freqd.features.align import Turn, turn_onto
from recbole_freqd.jobs.export.vectors import Read, Vectors

_BLOCK = 65_536


def turn_vectors(
    vectors: Vectors, names: tuple[np.ndarray, np.ndarray], old: Path
) -> tuple[Vectors, dict[str, Any]]:
    """The vectors, in float64, turned so that those that both exports have are near the old ones.

    Columns of biases stay as they are.

    Args:
        vectors: The new ones, in ids that count the padding.
        names: (n_users,) and (n_items,) str, the tokens by id; 0 is the padding.
        old: The folder of the older export.

    Returns:
        The turned vectors, and what the manifest says of the turn.

    Raises:
        ConfigError: There is no export, no user or item is shared, or its vectors have another
            width.
        CheckpointError: The older export is damaged.
    """
    older = read_export(old, "--align")
    width = vectors.width - vectors.exact_columns
    if older.width != width:
        raise ConfigError(
            f"--align: {old} has vectors of {older.width} numbers, the checkpoint of {width}; "
            "allowed: the same width. Export a student of the old width, or leave --align out."
        )
    shared = [_shared(*pair) for pair in zip(names, older.tokens)]
    new_rows = [
        _read(of, ids)[:, :width] for of, (ids, _) in zip((vectors.user, vectors.item), shared)
    ]
    old_rows = [rows[places, :width] for rows, (_, places) in zip(older.vectors, shared)]
    turn = turn_onto(np.concatenate(new_rows), np.concatenate(old_rows))
    rotation = torch.from_numpy(turn.rotation)
    turned = replace(
        vectors, user=_turned(vectors.user, rotation), item=_turned(vectors.item, rotation)
    )
    return turned, _described(turn, older.manifest, [len(ids) for ids, _ in shared])


def _shared(names: np.ndarray, old_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the tokens that both have, and their rows in the old export."""
    import pandas as pd

    places = pd.Index(old_tokens).get_indexer(pd.Index(names[1:].astype(np.str_)))
    return np.flatnonzero(places >= 0) + 1, places[places >= 0]


def _read(of: Read, ids: np.ndarray) -> np.ndarray:
    blocks = np.array_split(ids, range(_BLOCK, len(ids), _BLOCK))
    return np.concatenate([of(torch.from_numpy(some)).detach().double().numpy() for some in blocks])


def _turned(of: Read, rotation: torch.Tensor) -> Read:
    def read(ids: torch.Tensor) -> torch.Tensor:
        rows, width = of(ids).double(), len(rotation)
        return torch.cat([rows[:, :width] @ rotation, rows[:, width:]], dim=1)

    return read


def _described(turn: Turn, manifest: Any, shared: list[int]) -> dict[str, Any]:
    return {
        "onto": manifest["checkpoint"] if manifest else None,
        "shared": dict(zip(SIDES, shared)),
        "drift_before": round(turn.drift_before, 6),
        "drift_after": round(turn.drift_after, 6),
    }
