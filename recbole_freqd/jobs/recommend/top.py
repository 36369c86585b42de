"""The top of a ranker for some users, in blocks for a file."""

from collections.abc import Iterable, Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import Ranker

_LINES = 2**17  # of users and items that are yielded at once, at least
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def top_lists(
    ranker: Ranker,
    user_ids: np.ndarray,
    top: int,
    *,
    leave_out: Optional[sp.csr_array] = None,
    lists: Optional[ListMaker] = None,
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
        lists: Makes the lists of a catalogue beyond its size; None: all are exact.
        progress: Whether to show a bar.
    """
    blocks = (lists or ListMaker()).top_blocks(
        ranker,
        top,
        users=torch.from_numpy(user_ids).to(ranker.device),
        exclude=leave_out,
        progress=progress,
        title="Recommending",
    )
    yield from _joined(
        (users.cpu().numpy(), found.ids.long().cpu().numpy(), found.scores.cpu().numpy())
        for users, found in blocks
    )


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks put together, since a file takes a few long ones sooner than many short ones."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(items.size for _, items, _ in waiting) >= _LINES:
            yield _concatenated(waiting)
            waiting = []
    if waiting:
        yield _concatenated(waiting)


def _concatenated(blocks: list[Block]) -> Block:
    users, items, scores = (np.concatenate(parts) for parts in zip(*blocks))
    return users, items, scores
