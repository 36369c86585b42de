"""Checks that a student can learn from a teacher's features."""

import logging
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rows import Features
from recbole_freqd.features.data import tokens

_BLOCK = 65_536
_NAMED = 5  # entities that a message names
logger = logging.getLogger(__name__)


def check_features(
    features: Features,
    known: Optional[tuple[np.ndarray, np.ndarray]],
    dataset: Any,
    path: str,
) -> None:
    """Looks at every row that is taught; the padding, and who the teacher does not know, are not.

    Rows of zeros are allowed, and counted in the log: their cosine is 0, whatever the student does.

    Args:
        features: User features (n_users, d) and item features (n_items, d').
        known: See :attr:`recbole_freqd.teacher.Teacher.known`.
        dataset: The student's RecBole dataset, for the names.
        path: The teacher's checkpoint.

    Raises:
        TeacherError: Rows that are not finite, or too long for single precision; or no row that is
            not zero.
    """
    masks = known or (None, None)
    for side, values, mask, names in zip(("user", "item"), features, masks, tokens(dataset)):
        taught = np.arange(len(values)) > 0 if mask is None else mask
        finite, lengths = _rows(values)
        _refuse(side, values, names, taught & ~finite, "hold NaN or infinite numbers", path)
        # A length is a root of squares: beyond 1e19 they overflow, below 1e-19 they vanish.
        words = f"are too long (up to {float(values.abs().max()):.0e}) for single precision"
        _refuse(side, values, names, taught & np.isinf(lengths), words, path)
        zeros = taught & (lengths <= np.finfo(np.float32).tiny)
        if zeros.any() and zeros.sum() == taught.sum():
            raise TeacherError(
                f"Teacher {path} has nothing to teach: all of its {int(taught.sum())} {side} rows "
                "are zero, or too small for single precision. Distil from another teacher."
            )
        if zeros.any():
            logger.warning(
                "%d of the teacher's %d %s rows are zero (%s): nothing is learnt from these where "
                "the distance is cosine.",
                zeros.sum(),
                taught.sum(),
                side,
                _named(names, zeros),
            )


def _rows(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(n,) whether all numbers of a row are finite, and (n,) its length, block by block."""
    finite, lengths = [], []
    for block in values.split(_BLOCK):
        finite.append(torch.isfinite(block).all(dim=1).cpu())
        kind = torch.promote_types(block.dtype, torch.float32)
        lengths.append(torch.linalg.vector_norm(block, dim=1, dtype=kind).cpu())
    return torch.cat(finite).numpy(), torch.cat(lengths).numpy()


def _refuse(
    side: str, values: torch.Tensor, names: np.ndarray, bad: np.ndarray, what: str, path: str
) -> None:
    if not bad.any():
        return
    half = values.dtype == torch.float16 and not torch.isnan(values[torch.from_numpy(bad)]).any()
    remedy = (
        "float16 ends at 65504: set teacher.precision to float32."
        if half
        else "Train it again, with a smaller learning rate, or distil from another."
    )
    raise TeacherError(
        f"Teacher {path} cannot teach: {int(bad.sum())} of {len(values) - 1} {side} rows {what}: "
        f"{_named(names, bad)}. {remedy}"
    )


def _named(names: np.ndarray, rows: np.ndarray) -> str:
    """The first of some entities by token."""
    first = [str(name) for name in names[np.flatnonzero(rows)[:_NAMED]]]
    return ", ".join(first) + (", ..." if rows.sum() > len(first) else "")
