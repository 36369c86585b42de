"""Item neighbours by shrunk cosine: a teacher that takes seconds to compute."""

import hashlib
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.features.products import SummedScores
from recbole_freqd.graph.similarity import shrunk_cosines
from recbole_freqd.teacher.models.base import TrainingFree


class ShrunkKNN(TrainingFree):
    """score(u, i) = Σ w_ij over the training items j of u that are among the k nearest of i.

    w_ij = c_ij / √(n_i n_j) · c_ij / (c_ij + s), with c the numbers of common users and n_i that of
    the users of i. The k nearest are those of each *target* item i: an item is scored by its own
    neighbours, however many items have it as theirs.

    Everything is computed again from the data when a checkpoint is read; what the checkpoint holds
    is a hash, which tells teachers of other data or keys apart.

    Keys (``properties/model/ShrunkKNN.yaml``): ``k`` neighbours, ``shrink`` the s ≥ 0 above.

    Source: item-based neighbours with significance weighting (Herlocker et al., SIGIR 1999; Bell &
        Koren, ICDM 2007, §2). Deviation: RecBole's ItemKNN has another formula (the shrinkage in
        the denominator) and keeps the neighbours of the other item of a pair.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.neighbours = neighbour_weights(self.user_items, **self.options)
        self.register_buffer("content", _content(self.neighbours))

    def _make_scores(self) -> SummedScores:
        return SummedScores([[self.user_items, self.neighbours]])


def neighbour_weights(user_items: sp.csr_array, k: int, shrink: float) -> sp.csr_array:
    """(n_items, n_items) float32, in column i the weights of the k nearest of item i.

    Args:
        user_items: (n_users, n_items), non-zero where there is an interaction.
        k: Neighbours of an item, at least 1.
        shrink: s ≥ 0.
    """
    (nearest,) = shrunk_cosines(user_items, side="item", k=k, shrinkages=(shrink,))
    weights = sp.csr_array(nearest.T)
    weights.sort_indices()
    return weights


def _content(weights: sp.csr_array) -> torch.Tensor:
    """(2,) int64, a hash of a sparse matrix."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (weights.indptr, weights.indices, weights.data):
        digest.update(np.ascontiguousarray(part).tobytes())
    return torch.from_numpy(np.frombuffer(digest.digest(), dtype=np.int64).copy())
