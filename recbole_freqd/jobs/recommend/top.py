"""The exact top of a model for some users, block by block."""

from collections.abc import Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.rankers import BUDGET_BYTES, Ranker, candidates

_MOST_USERS = 1024


def top_lists(
    ranker: Ranker,
    user_ids: np.ndarray,
    top: int,
    *,
    leave_out: Optional[sp.csr_array] = None,
    progress: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields users (b,), their best items (b, k) and their scores (b, k) float32, best first.

    Of equal scores the smaller id comes first. Memory is that of one block of users, whatever their
    number.

    Args:
        ranker: What ranks; ids from 1, as RecBole's.
        user_ids: (n,) int64.
        top: ≥ 1, length of the lists; the number of items where there are fewer.
        leave_out: (n_users, n_items) sparse, non-zero for pairs that are not recommended.
        progress: Whether to show a bar.
    """
    k = min(top, ranker.shape[1] - 1)
    size = max(1, min(_MOST_USERS, BUDGET_BYTES // (16 * ranker.shape[1])))
    blocks = np.array_split(user_ids, range(size, len(user_ids), size))
    for users in tqdm(blocks, desc="Recommending", ncols=100, disable=not progress):
        asked = torch.from_numpy(users).to(ranker.device)
        scores = candidates(ranker, asked, leave_out)
        yield (users, *_best(scores, k))


def _best(scores: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and scores of the ``k`` best of each row, ties by column."""
    values, items = (part.cpu().numpy() for part in scores.topk(k, dim=1))
    # topk picks any of those that tie with the last: take the smallest ids of them instead.
    last = values[:, -1:]
    tied = (scores.cpu().numpy() == last).sum(axis=1) > (values == last).sum(axis=1)
    for row in np.flatnonzero(tied & ~np.isneginf(last[:, 0])):
        own = scores[row].cpu().numpy()
        items[row] = np.lexsort((np.arange(len(own)), -own))[:k]
        values[row] = own[items[row]]
    order = np.lexsort((items, -values), axis=1)
    return np.take_along_axis(items, order, 1), np.take_along_axis(values, order, 1)
