"""Turns the vectors of a new model onto those of an old one, without changing a score."""

from dataclasses import dataclass

import numpy as np

from recbole_freqd.core.errors import ConfigError


@dataclass(frozen=True)
class Turn:
    """An orthogonal turn of new vectors onto old ones.

    Attributes:
        rotation: (d, d) float64, orthogonal; multiply both sides' vectors by it from the right.
        shared: Rows that both have.
        drift_before, drift_after: Mean distance of a shared row to its old one, as a share of the
            mean length of the old ones; 0 where nothing moved.
    """

    rotation: np.ndarray
    shared: int
    drift_before: float
    drift_after: float


def turn_onto(new_rows: np.ndarray, old_rows: np.ndarray) -> Turn:
    """Finds the orthogonal turn that brings new vectors closest to old ones.

    Inner products of turned vectors are those of the vectors, so ranks and scores stay as they are
    (to rounding), and whoever keeps the old vectors can go on with the new ones.

    Args:
        new_rows: (n, d), the new vectors of the entities that both models know, users and items one
            below the other, without columns of biases.
        old_rows: (n, d), the old vectors of the same entities in the same order.

    Raises:
        ConfigError: Another width, another number of rows, or none.

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika
        1966. For recommenders: Netflix, arXiv 2508.07574.

    Example:
        >>> old = np.array([[1.0, 0.0], [0.0, 2.0]])
        >>> turn = turn_onto(old @ np.array([[0.0, 1.0], [-1.0, 0.0]]), old)
        >>> round(turn.drift_before, 2), round(turn.drift_after, 2)
        (1.41, 0.0)
    """
    if new_rows.shape != old_rows.shape or not len(new_rows):
        raise ConfigError(
            f"The vectors to align have shapes {new_rows.shape} and {old_rows.shape}; allowed: "
            "the same width, and at least one user or item in both. Export a student of the old "
            "width, or leave --align out."
        )
    new, old = new_rows.astype(np.float64), old_rows.astype(np.float64)
    left, _, right = np.linalg.svd(new.T @ old)
    rotation = left @ right
    return Turn(rotation, len(new), _drift(new, old), _drift(new @ rotation, old))


def _drift(new: np.ndarray, old: np.ndarray) -> float:
    """Mean distance of rows, as a share of the mean length of the old ones."""
    length = np.linalg.norm(old, axis=1).mean()
    return float(np.linalg.norm(new - old, axis=1).mean() / length) if length > 0 else 0.0
