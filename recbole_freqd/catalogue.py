"""Passes over the whole catalogue, without RecBole: scores in blocks of users, and top lists."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import scipy.sparse as sp
import torch
from tqdm import tqdm

_BUDGET_BYTES = 256 * 2**20
_COPIES = 4  # a model's own intermediate arrays of the size of the scores
_MOST_USERS = 1024


def user_blocks(n_users: int, n_items: int, device: Any) -> Iterator[torch.Tensor]:
    """The ids of all users, 0 included, in blocks whose scores fit the memory budget."""
    size = _BUDGET_BYTES // (4 * _COPIES * n_items)
    yield from torch.arange(n_users, device=device).split(max(1, min(size, _MOST_USERS)))


class Ranker:
    """What gives every user and item a score, without gradient; 0 is RecBole's padding.

    Attributes:
        shape: (n_users, n_items).
        device: Where scores are computed.
    """

    shape: tuple[int, int]
    device: torch.device

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        """(b, n_items), the scores of users (b,) int64 for all items; the caller's to change."""
        raise NotImplementedError

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """(b, k), the scores of users (b,) int64 for items (b, k) int64 of their own."""
        raise NotImplementedError


class FeatureRanker(Ranker):
    """Scores that are dot products of features.

    Args:
        user_emb: (n_users, d). item_emb: (n_items, d); any floating dtype, computed in float32.
    """

    def __init__(self, user_emb: torch.Tensor, item_emb: torch.Tensor) -> None:
        self.user_emb, self.item_emb = user_emb.detach(), item_emb.detach()
        self.shape, self.device = (len(user_emb), len(item_emb)), user_emb.device

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.user_emb[user_ids].float() @ self.item_emb.float().T

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        users, items = self.user_emb[user_ids].float(), self.item_emb[item_ids].float()
        return torch.einsum("bd,bkd->bk", users, items)


@dataclass(frozen=True)
class TopItems:
    """The best items of every user, best first.

    Attributes:
        ids: (n_users, k) int32; 0, the padding, where a user has fewer items to choose from.
        scores: (n_users, k) float32; -inf there.
    """

    ids: torch.Tensor
    scores: torch.Tensor


def top_items(
    ranker: Ranker,
    k: int,
    *,
    exclude: Optional[sp.csr_array] = None,
    progress: bool = False,
    title: str = "Ranking",
) -> TopItems:
    """The top lists of all users, made in blocks of users within a memory budget.

    Args:
        ranker: Whose.
        k: Length of the lists; the number of items where there are fewer.
        exclude: (n_users, n_items) sparse, non-zero for the pairs that do not count, e.g. the
            training interactions. The padding item never counts.
        progress: Whether to show a bar.
        title: Of the bar.
    """
    n_users, n_items = ranker.shape
    k = min(k, n_items - 1)
    ids = torch.zeros(n_users, k, dtype=torch.int32, device=ranker.device)
    scores = torch.full((n_users, k), -torch.inf, device=ranker.device)
    blocks = list(user_blocks(n_users, n_items, ranker.device))
    for users in tqdm(blocks, desc=title, ncols=100, disable=not progress):
        found = candidates(ranker, users, exclude)
        best, items = found.topk(k, dim=1)
        first, last = int(users[0]), int(users[-1]) + 1
        ids[first:last] = torch.where(best.isneginf(), 0, items).int()
        scores[first:last] = best
    return TopItems(ids, scores)


def candidates(
    ranker: Ranker, user_ids: torch.Tensor, exclude: Optional[sp.csr_array] = None
) -> torch.Tensor:
    """(b, n_items) float32, the scores of users (b,) with -inf for the padding and ``exclude``."""
    scores = ranker.block(user_ids).float()
    scores[:, 0] = -torch.inf
    if exclude is not None:
        part = exclude[user_ids.cpu().numpy()].tocoo()
        row, col = (torch.from_numpy(ids).long().to(scores.device) for ids in part.coords)
        scores[row, col] = -torch.inf
    return scores
