"""The exact top of a ranker for some users, block by block."""

from collections.abc import Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.rankers import Ranker, candidates
from recbole_freqd.core.top import best_of

_MOST_USERS = 1024
_BLOCK_BYTES = 2**24  # scores: small enough that the same memory is used again and again
_LINES = 2**17  # of users and items that are yielded at once
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def top_lists(
    ranker: Ranker,
    user_ids: np.ndarray,
    top: int,
    *,
    leave_out: Optional[sp.csr_array] = None,
    progress: bool = False,
) -> Iterator[Block]:
    """Yields users (b,), their best items (b, k) and their scores (b, k) float32, best first.

    Of equal scores the smaller id comes first. Where a user has fewer items, the rest is item 0 at
    -inf. Memory is that of one block of scores and of the lists yielded at once, whatever the
    number of users.

    Args:
        ranker: What ranks; ids from 1, as RecBole's.
        user_ids: (n,) int64.
        top: ≥ 1, length of the lists; the number of items where there are fewer.
        leave_out: (n_users, n_items) sparse, non-zero for pairs that are not recommended.
        progress: Whether to show a bar.
    """
    k = min(top, ranker.shape[1] - 1)
    size = max(1, min(_MOST_USERS, _BLOCK_BYTES // (4 * ranker.shape[1])))
    at_once = size * max(1, _LINES // (size * k))
    with tqdm(total=len(user_ids), desc="Recommending", ncols=100, disable=not progress) as bar:
        for users in _split(user_ids, at_once):
            # Made first: what is made between blocks of scores would cut their memory to pieces.
            items = np.zeros((len(users), k), dtype=np.int64)
            scores = np.empty((len(users), k), dtype=np.float32)
            for places in _split(np.arange(len(users)), size):
                asked = torch.from_numpy(users[places]).to(ranker.device)
                block = candidates(ranker, asked, leave_out)
                best, columns = best_of(block, k)
                items[places], scores[places] = columns.cpu().numpy(), best.cpu().numpy()
                bar.update(len(places))
            yield users, items, scores


def _split(values: np.ndarray, size: int) -> list[np.ndarray]:
    return np.array_split(values, range(size, len(values), size)) if len(values) else []
