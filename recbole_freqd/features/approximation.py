"""The best features of a smaller width for what is taught: a student can start there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import torch

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rankers import Ranker, user_blocks
from recbole_freqd.core.rows import Features
from recbole_freqd.features.extract import factored_scores
from recbole_freqd.features.low_rank import BlockScores, Scores, low_rank_features
from recbole_freqd.features.products import SummedRanker
from recbole_freqd.features.scores import ModelRanker

Masks = tuple[np.ndarray, np.ndarray]
"""(n_users,) and (n_items,) bool: the entities that count; never the padding, row 0."""

_BLOCK_BYTES = 64 * 2**20  # of a table, made float64 at once
_NEGLIGIBLE = 1e-6  # of the largest singular value: float32 features know no better


@dataclass(frozen=True)
class Approximation:
    """U Vᵀ + b 1ᵀ + 1 cᵀ, the nearest of its width to a matrix of scores.

    Attributes:
        user_emb, item_emb: (n_users, r) and (n_items, r) float32, r at most the rank asked for,
            columns by falling singular value, zeros where ``masks`` is False. Both sides carry
            the square roots of the singular values.
        share: Of the energy ‖Y‖²_F of the scores that is kept, biases included, in [0, 1].
        masks: The users and items that it is about.
        user_bias, item_bias: (n_users,) and (n_items,) float32, where they were asked for.
    """

    user_emb: torch.Tensor
    item_emb: torch.Tensor
    share: float
    masks: Masks
    user_bias: Optional[torch.Tensor] = None
    item_bias: Optional[torch.Tensor] = None

    @property
    def features(self) -> Features:
        """Both tables."""
        return self.user_emb, self.item_emb

    @property
    def rank(self) -> int:
        """r, the number of columns."""
        return self.user_emb.shape[1]


def approximate(
    taught: Union[Ranker, Scores],
    rank: int,
    known: Optional[Masks] = None,
    *,
    biases: tuple[bool, bool] = (False, False),
    stand_ins: Optional[Features] = None,
    seed: int = 0,
) -> Approximation:
    """The best approximation of what is taught by features of a width.

    Scores that are products of features (:meth:`Ranker.factors`, biases being columns) take the
    Gram matrices of both tables and one SVD of a small matrix. Others take a randomised SVD: in
    their factors where they have some (EASE, ItemKNN, ...), else in three passes over blocks of
    users, with 0 for what is unknown. Signs are fixed, so the same scores give the same rows.

    Args:
        taught: What ranks, as it is taught; or its scores as products, which must give row and
            column 0 and all that is not ``known`` the score 0.
        rank: ≥ 1, the width wanted.
        known: What it knows; None: everything. Items that it gives -inf for everybody are unknown.
        biases: Whether a student has a bias of its own for each user, for each item. Then these
            hold the means (Y is centred on that side first), and all columns are left for the rest:
            nothing of this width with biases is nearer to Y.
        stand_ins: Features (n_users, k) and (n_items, k), e.g. spectral ones, whose products are
            approximated instead of scores that have no factors; for catalogues so large that no
            pass over all scores is made. None: there are none, or it is small.
        seed: Of the randomised SVD.

    Raises:
        TeacherError: Scores that are NaN or infinite (-inf, the unknown, apart).

    Source: Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 2011, for
        the randomised one; the other is the textbook's SVD of a product.
    """
    factors = taught.factors() if isinstance(taught, Ranker) else None
    if factors is None and not isinstance(taught, (Scores, SummedRanker)):
        factors = stand_ins
    if factors is not None:
        user, item = _masks(taught.shape, known)
        if isinstance(taught, Ranker):
            item &= taught.known_items().cpu().numpy()
        return approximate_product(factors, rank, (user, item), biases)
    masks, scores = _read(taught, known)
    extra = sum(biases)  # the means are two directions more, of which none may be lost
    try:
        user_emb, item_emb, share = low_rank_features(scores, rank + extra, seed)
    except ValueError as error:
        raise TeacherError(f"What is taught cannot be approximated: {error}.") from None
    device = getattr(taught, "device", "cpu")
    features = torch.from_numpy(user_emb).to(device), torch.from_numpy(item_emb).to(device)
    if not extra:
        return Approximation(*features, share, masks)
    found = approximate_product(features, rank, masks, biases)
    return Approximation(
        *found.features, share * found.share, masks, found.user_bias, found.item_bias
    )


def approximate_product(
    features: Features,
    rank: int,
    masks: Masks,
    biases: tuple[bool, bool] = (False, False),
) -> Approximation:
    """:func:`approximate` for scores Y = F Gᵀ.

    With F = Q_F R_F, G = Q_G R_G and R_F R_Gᵀ = A Σ Bᵀ the singular vectors of Y are Q_F A and
    Q_G B. Q is never made: Q_F A Σ^½ = F (R_Gᵀ B Σ^-½), so that both tables are read in blocks
    only, for R and for the result, and may lie in files. R is a root of the table's Gram matrix in
    float64, which loses what is below 1e-8 of the largest and is many times as fast as Householder
    reflections.

    Args:
        features: F (n_users, k) and G (n_items, k), any floating dtype.
        rank: ≥ 1; directions below 1e-6 of the largest are left out.
        masks, biases: See :func:`approximate`.

    Raises:
        TeacherError: Features that are NaN or infinite.
    """
    sides = [_Table(values, mask) for values, mask in zip(features, masks)]
    means = [side.mean() if any(biases) else np.zeros(0) for side in sides]
    grams = [side.gram() for side in sides]
    energy = float((grams[0] * grams[1]).sum())
    # A bias of the items takes the mean over the users out of every column of Y, and conversely.
    for place, centred in enumerate((biases[1], biases[0])):
        if centred:
            sides[place].shift = means[place]
            grams[place] = sides[place].gram()
    factors = [_root(gram) for gram in grams]
    left, sigma, right = np.linalg.svd(factors[0] @ factors[1].T)
    kept = max(1, int((sigma[:rank] > _NEGLIGIBLE * sigma[0]).sum()))
    root = np.sqrt(np.maximum(sigma[:kept], np.finfo(np.float64).tiny))
    user_map = factors[1].T @ right[:kept].T / root
    item_map = factors[0].T @ left[:, :kept] / root
    user_emb, item_emb = sides[0].times(user_map), sides[1].times(item_map)
    _fix_signs(user_emb, item_emb)
    lost = float(np.square(sigma[kept:]).sum())
    of_users, of_items = _biases(sides, means, biases)
    share = min(max(1.0 - lost / energy, 0.0), 1.0) if energy else 1.0
    return Approximation(user_emb, item_emb, share, masks, of_users, of_items)


class _Table:
    """A table of features, read in float64 blocks; rows that do not count are zero.

    Attributes:
        shift: (k,), what is taken off every row that counts.
    """

    def __init__(self, values: torch.Tensor, mask: np.ndarray) -> None:
        self.values, self.mask = values, mask
        self.shift = np.zeros(values.shape[1])

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        size = max(1, _BLOCK_BYTES // (8 * self.values.shape[1]))
        for start in range(0, len(self.values), size):
            rows = slice(start, start + size)
            block = self.values[rows].detach().cpu().double().numpy() - self.shift
            block[~self.mask[rows]] = 0  # also where the unknown is NaN
            if not np.isfinite(block).all():
                raise TeacherError(
                    "What is taught has features that are NaN or infinite. Train the teacher again."
                )
            yield rows, block

    def mean(self) -> np.ndarray:
        """(k,), over the rows that count."""
        return sum(block.sum(axis=0) for _, block in self.blocks()) / max(1, self.mask.sum())

    def gram(self) -> np.ndarray:
        """(k, k)."""
        return sum(block.T @ block for _, block in self.blocks())

    def times(self, matrix: np.ndarray) -> torch.Tensor:
        """(n, c) float32 on the table's device, for a matrix (k, c)."""
        made = torch.empty(len(self.values), matrix.shape[1], device=self.values.device)
        for rows, block in self.blocks():
            made[rows] = torch.from_numpy(block @ matrix).to(made)
        return made


def _root(gram: np.ndarray) -> np.ndarray:
    """(k, k), an R with RᵀR = G."""
    values, vectors = np.linalg.eigh(gram)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def _biases(
    sides: list[_Table], means: list[np.ndarray], wanted: tuple[bool, bool]
) -> tuple[Optional[torch.Tensor], Optional[torch.Tensor]]:
    """Means of Y over the other side; with both, the mean of all is in the users' only."""
    of_users = of_items = None
    if wanted[1]:
        sides[1].shift = np.zeros_like(means[1])
        of_items = sides[1].times(means[0][:, None])[:, 0]
    if wanted[0]:  # the users' shift is their mean where the items have a bias, which takes it
        of_users = sides[0].times(means[1][:, None])[:, 0]
    return of_users, of_items


def _fix_signs(user_emb: torch.Tensor, item_emb: torch.Tensor) -> None:
    """The sign of a singular vector is free: its largest item is positive, in place."""
    signs = torch.sign(item_emb[item_emb.abs().argmax(0), torch.arange(item_emb.shape[1])])
    signs[signs == 0] = 1
    user_emb *= signs
    item_emb *= signs


class RankerScores(BlockScores):
    """The scores of any :class:`Ranker`, made anew in blocks of users at each pass.

    Args:
        ranker: Whose.
        masks: The users and items that count; the scores of all others are 0, as is -inf.
    """

    def __init__(self, ranker: Ranker, masks: Masks) -> None:
        self.ranker, self.shape, self.device = ranker, ranker.shape, ranker.device
        self._masks = [torch.from_numpy(mask).to(ranker.device) for mask in masks]

    def blocks(self) -> Iterator[torch.Tensor]:
        of_users, of_items = self._masks
        for users in user_blocks(*self.shape, self.device):
            scores = self.ranker.block(users).float()
            scores[:, ~of_items] = 0
            scores[~of_users[users]] = 0
            yield scores.masked_fill_(scores.isneginf(), 0)


def _masks(shape: tuple[int, int], known: Optional[Masks]) -> Masks:
    masks = known or tuple(np.ones(n, dtype=bool) for n in shape)
    user, item = (mask.copy() for mask in masks)
    user[0] = item[0] = False
    return user, item


def _read(taught: Any, known: Optional[Masks]) -> tuple[Masks, Scores]:
    """What counts, and the scores in the form that is cheapest to multiply by."""
    masks = _masks(taught.shape, known)
    if isinstance(taught, Scores):
        return masks, taught
    masks = masks[0], masks[1] & taught.known_items().cpu().numpy()
    all_known = all(mask[1:].all() for mask in masks)
    products = product_scores(taught) if all_known else None
    return masks, products or RankerScores(taught, masks)


def product_scores(ranker: Ranker) -> Optional[Scores]:
    """A ranker's scores as products of matrices, or None where they are none."""
    if isinstance(ranker, ModelRanker):
        return factored_scores(ranker.model)
    return ranker.products()
