"""GF-CF: two low-pass filters of the user-item graph, in closed form."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds

from recbole_freqd.core.files import fingerprint
from recbole_freqd.features.products import SummedScores
from recbole_freqd.teacher.models.base import TrainingFree

_NEGLIGIBLE = 1e-3  # of the largest singular value; in single precision less is no direction
_LARGE = 500_000  # interactions
_kept: Optional[dict[str, tuple[np.ndarray, np.ndarray]]] = None  # see bases_kept

logger = logging.getLogger(__name__)


class GFCF(TrainingFree):
    """Scores R (R̃ᵀR̃ + a D^-½ V Vᵀ D^½): a linear low-pass filter, and an ideal one.

    R is the binary matrix of the training interactions, D_U and D the degrees of users and items,
    R̃ = D_U^-½ R D^-½ and V (n_items, rank) the first right singular vectors of R̃. No matrix of
    items times items is made: what is kept are R, R̃ and V.

    The checkpoint holds D^½ V and the singular values; the rest is computed again from the data.

    Keys (``properties/model/GFCF.yaml``): ``rank``, cut to what the data has, and ``ideal_weight``,
    the a ≥ 0 above.

    Source: Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021,
        algorithm 1.
    """

    item_basis: torch.Tensor
    singular_values: torch.Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        rank = min(self.options["rank"], *(size - 1 for size in self.user_items.shape))
        self.normalised = normalise_both_sides(self.user_items)
        # Filled where it is first asked for: a checkpoint that is read brings them.
        self.register_buffer("item_basis", torch.zeros(self.n_items, rank))
        self.register_buffer("singular_values", torch.zeros(rank))

    def calculate_loss(self, interaction: Any) -> Optional[torch.Tensor]:
        """0; at the first call the singular vectors are computed."""
        self._fit()
        return super().calculate_loss(interaction)

    def _state(self) -> Any:
        self._fit()
        return id(self.item_basis), self.item_basis._version

    def _make_scores(self) -> SummedScores:
        basis = self.item_basis.cpu().numpy()
        weight = self.options["ideal_weight"]
        return summed_filters(self.user_items, self.normalised, basis, weight)

    def _fit(self) -> None:
        """Computes D^½ V where it is missing, in place: all holders of the buffers see it."""
        if self.singular_values.any():
            return
        basis, values = ideal_basis(self.user_items, self.normalised, len(self.singular_values))
        self.item_basis[:, : len(values)] = torch.from_numpy(basis).to(self.item_basis)
        self.singular_values[: len(values)] = torch.from_numpy(values).to(self.singular_values)


def normalise_both_sides(user_items: sp.csr_array) -> sp.csr_array:
    """R̃ = D_U^-½ R D^-½ float32; rows and columns without interactions stay empty."""
    sides = [
        np.bincount(ids, minlength=n) for ids, n in zip(user_items.nonzero(), user_items.shape)
    ]
    left, right = (np.where(n > 0, np.maximum(n, 1) ** -0.5, 0.0) for n in sides)
    scaled = sp.diags_array(left) @ user_items @ sp.diags_array(right)
    return sp.csr_array(scaled.astype(np.float32))


@contextmanager
def bases_kept() -> Iterator[None]:
    """While open, :func:`ideal_basis` computes nothing twice: a panel's choice, and its teacher."""
    global _kept
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def ideal_basis(
    user_items: sp.csr_array, normalised: sp.csr_array, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """D^½ V (n_items, r) of the first right singular vectors of R̃, and its singular values (r,).

    Args:
        user_items: R. normalised: R̃.
        rank: At least 1; r ≤ rank, since directions that carry nothing are left out.

    Returns:
        Both float32; the first r' columns are those of a smaller rank r', up to rounding.
    """
    if _kept is None:
        return _singular_vectors(user_items, normalised, rank)
    key = fingerprint(user_items.indptr, user_items.indices, rank)
    if key not in _kept:
        _kept[key] = _singular_vectors(user_items, normalised, rank)
    return _kept[key]


def _singular_vectors(
    user_items: sp.csr_array, normalised: sp.csr_array, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`ideal_basis`."""
    logger.info("GFCF: the first %d singular vectors of %d x %d", rank, *normalised.shape)
    kind = np.float64 if normalised.nnz < _LARGE else np.float32  # half the time
    start = np.random.default_rng(0).standard_normal(min(normalised.shape)).astype(kind)
    # Lanczos, not random projections: the spectrum is flat at its end, and quality is lost there.
    _, values, right = svds(normalised.astype(kind), k=rank, v0=start)
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > _NEGLIGIBLE * values.max()]
    degrees = np.bincount(user_items.indices, minlength=user_items.shape[1])
    basis = right[order].T * np.sqrt(degrees)[:, None]
    return basis.astype(np.float32), values[order].astype(np.float32)


def summed_filters(
    user_items: sp.csr_array, normalised: sp.csr_array, basis: np.ndarray, ideal_weight: float
) -> SummedScores:
    """R R̃ᵀR̃ + a R D^-1 (D^½ V) (D^½ V)ᵀ, which is R (R̃ᵀR̃ + a D^-½ V Vᵀ D^½).

    Args:
        user_items: R. normalised: R̃.
        basis: D^½ V, (n_items, r).
        ideal_weight: a ≥ 0; 0 leaves the linear filter.
    """
    products: list[list[Any]] = [[user_items, sp.csr_array(normalised.T), normalised]]
    if ideal_weight > 0:
        degrees = np.bincount(user_items.indices, minlength=user_items.shape[1])
        scale = np.where(degrees > 0, ideal_weight / np.maximum(degrees, 1), 0.0)
        weighted = sp.csr_array((user_items @ sp.diags_array(scale)).astype(np.float32))
        products.append([weighted, basis, basis.T])
    return SummedScores(products)
