"""Scores from lists: unlisted items have the floor of their user."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import Features
from recbole_freqd.features.low_rank import FactoredScores, low_rank_features


class ListRanker(Ranker):
    """What ranks by lists. Memory is that of the lists.

    Args:
        above: (n_users, n_items) sparse float32: by how much a listed item is above the floor of
            its user; every stored number above 0.
        floors: (n_users,) float32, the score of known items that are not in a user's list.
        known: (n_items,) bool: items that occur in any list. The others score -inf.
        device: Where scores are wanted.
    """

    def __init__(
        self, above: sp.csr_array, floors: np.ndarray, known: np.ndarray, device: Any = "cpu"
    ) -> None:
        self.above = above
        self.above.sort_indices()
        self.shape, self.device = above.shape, torch.device(device)
        self.floors = torch.from_numpy(floors).to(self.device, torch.float32)
        self._known = torch.from_numpy(known).to(self.device)

    def known_items(self) -> torch.Tensor:
        return self._known.clone()

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        part = self.above[user_ids.cpu().numpy()].tocoo()
        row, col, data = (
            torch.from_numpy(values).to(self.device) for values in (part.row, part.col, part.data)
        )
        scores = self.floors[user_ids][:, None].repeat(1, self.shape[1])
        scores[row.long(), col.long()] += data
        return scores.masked_fill_(~self._known, -torch.inf)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        part = self.above[user_ids.cpu().numpy()]
        row = np.repeat(np.arange(len(user_ids)), np.diff(part.indptr))
        codes = row * self.shape[1] + part.indices  # ascending
        wanted = item_ids.cpu().numpy() + np.arange(len(user_ids))[:, None] * self.shape[1]
        data = np.zeros(wanted.shape, dtype=np.float32)
        if len(codes):
            place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
            data = np.where(codes[place] == wanted, part.data[place], data)
        scores = self.floors[user_ids][:, None] + torch.from_numpy(data).to(self.device)
        return scores.masked_fill_(~self._known[item_ids], -torch.inf)


def spectral_features(above: sp.csr_array, rank: int, device: Any) -> tuple[Features, float]:
    """Features whose dot products are the best approximation of ``above`` at a rank.

    That differs from the scores by a number of each user, which changes no ranking.

    Returns:
        (n_users, r) and (n_items, r) float32, r ≤ rank, zeros for who has no list and for what is
        in none; and the share of the energy that they keep.
    """
    user_emb, item_emb, share = low_rank_features(FactoredScores([above]), rank)
    user, item = (torch.from_numpy(part).to(device) for part in (user_emb, item_emb))
    user[torch.from_numpy(np.diff(above.indptr) == 0)] = 0
    item[torch.from_numpy(np.bincount(above.indices, minlength=above.shape[1]) == 0)] = 0
    return (user, item), share
