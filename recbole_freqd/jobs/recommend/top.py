"""The exact top of a ranker for some users, block by block."""

from collections.abc import Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from recbole_freqd.core.rankers import Ranker, candidates

_MOST_USERS = 1024
_BLOCK_BYTES = 2**24  # scores: small enough that the same memory is used again and again
_LINES = 2**17  # of users and items that are yielded at once
_PARTS = 16  # parts of a row of scores, for each item of a list
_MOST_HITS = 4  # parts that are looked into, for each item of a list; more: scores are equal
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
                items[places], scores[places] = best_of(block, k)
                bar.update(len(places))
            yield users, items, scores


def _split(values: np.ndarray, size: int) -> list[np.ndarray]:
    return np.array_split(values, range(size, len(values), size)) if len(values) else []


def best_of(scores: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (b, k) int64 and scores (b, k) of the ``k`` best of each row, ties by column.

    A row is cut into parts. The k-th best of their maxima is a lower bound of the k-th best score,
    so nothing below it has to be sorted, and every tie with the last is seen.
    """
    columns = np.zeros((len(scores), k), dtype=np.int64)
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    row, col, value = _above_bound(scores, k)
    order = np.lexsort((col, -value, row))
    counts = np.bincount(row, minlength=len(scores))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < k]
    columns[row[kept], place[place < k]] = col[kept]
    values[row[kept], place[place < k]] = value[kept]
    return columns, values


def _above_bound(scores: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and scores (n,) of all that may be among the ``k`` best, by row."""
    n_items = scores.shape[1]
    size = max(1, n_items // (_PARTS * k))
    parts = scores[:, : n_items // size * size].view(len(scores), -1, size)
    maxima = parts.amax(dim=2)
    bound = maxima.topk(k, dim=1).values[:, -1].clamp(min=torch.finfo(scores.dtype).min)
    hits = maxima >= bound[:, None]
    flat = hits.sum(dim=1) > _MOST_HITS * k
    hits[flat] = False
    row, part = hits.nonzero(as_tuple=True)
    inside, offset = (parts[row, part] >= bound[row, None]).nonzero(as_tuple=True)
    rest = scores[:, parts.shape[1] * size :] >= bound[:, None]
    rest[flat] = False
    rest_row, rest_col = rest.nonzero(as_tuple=True)
    found = [
        (row[inside], part[inside] * size + offset),
        (rest_row, rest_col + parts.shape[1] * size),
        *(_best_of_row(scores[place], place, k) for place in flat.nonzero().flatten().tolist()),
    ]
    rows, columns = (torch.cat(list(ids)) for ids in zip(*found))
    order = rows.argsort(stable=True)
    rows, columns = rows[order], columns[order]
    return tuple(ids.cpu().numpy() for ids in (rows, columns, scores[rows, columns]))  # type: ignore[return-value]


def _best_of_row(scores: torch.Tensor, row: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of one row (n_items,), many of which are equal."""
    columns = scores.argsort(descending=True, stable=True)[:k]
    columns = columns[~scores[columns].isneginf()]
    return torch.full_like(columns, row), columns
