"""The best of each row of scores, without sorting the rest."""

import numpy as np
import torch

_SIZE = 16  # columns of a group at most
_GROUPS = 8  # groups that a row is cut into at least, for each of its best
_COARSE = 2  # groups of groups, likewise
_LAST = torch.iinfo(torch.int64).max
_LOW = 2**32 - 1
_MAGNITUDE = 2**31 - 1  # the bits of a float without its sign: negative ones fall as these rise


def best_of(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of each row, best first; of equal scores the smaller column.

    A row is cut into groups. The k-th best of their maxima is a lower bound of the k-th best score,
    so the rest is compared with that once and never sorted: two to four times as fast as ``topk``
    where k is a small part of the row.

    Args:
        scores: (b, n) float32; -inf for what is never among the best. NaN is better than all.
        k: From 1 to n.

    Returns:
        (b, k) float32, the scores, and (b, k) int64, their columns; -inf and 0 where there are
        fewer.

    Example:
        >>> scores = torch.tensor([[1.0, 3.0, 3.0, -torch.inf]])
        >>> [found.tolist() for found in best_of(scores, 2)]
        [[[3.0, 3.0]], [[1, 2]]]
    """
    n = scores.shape[1]
    size = max(1, min(_SIZE, n // (_GROUPS * k)))
    n_groups = n // size
    # A group is every n_groups-th column, so that maxima are taken of whole vectors.
    maxima = _maxima(scores, size, n_groups)
    rest = scores[:, n_groups * size :]
    if maxima.isnan().any() or rest.isnan().any():
        best, columns = scores.topk(k, dim=1)
        return best, columns.masked_fill(best.isneginf(), 0)
    bound = _lower_bound(maxima, k)
    hits = _flat_places(maxima >= bound)
    row = hits.div(n_groups, rounding_mode="floor")
    steps = n_groups * torch.arange(size, device=scores.device)
    places = (hits + row * (n - n_groups))[:, None] + steps  # in all scores, row after row
    inside = _flat_places(scores.take(places) >= bound[row])
    beside = _flat_places(rest >= bound)
    row = beside.div(max(1, rest.shape[1]), rounding_mode="floor")
    beside = beside + row * (n - rest.shape[1]) + n_groups * size
    return _sorted(scores, (places.view(-1)[inside], beside), k)


def _flat_places(mask: torch.Tensor) -> torch.Tensor:
    """(m,) int64, where a mask is true, ascending, as if it were one vector."""
    if mask.device.type == "cpu":  # three times as fast as torch's
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero()[:, 0]


def _maxima(scores: torch.Tensor, size: int, n_groups: int) -> torch.Tensor:
    """(b, n_groups), the best score of each group."""
    if size == 1:
        return scores
    return scores[:, : size * n_groups].unflatten(1, (size, n_groups)).amax(dim=1)


def _lower_bound(maxima: torch.Tensor, k: int) -> torch.Tensor:
    """(b, 1), what at least k of each row reach, as far as more than -inf is there."""
    coarse = maxima.shape[1] // (_COARSE * k)
    if coarse > 1:
        maxima = _maxima(maxima, coarse, maxima.shape[1] // coarse)
    bound = maxima.kthvalue(maxima.shape[1] - k + 1, dim=1, keepdim=True).values
    return bound.clamp(min=torch.finfo(maxima.dtype).min)


def _sorted(
    scores: torch.Tensor, found: tuple[torch.Tensor, ...], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of what is at flat places, each (m,) and ascending; see :func:`best_of`."""
    n_rows, n = scores.shape
    rows = [places.div(n, rounding_mode="floor") for places in found]
    counts = [torch.bincount(row, minlength=n_rows) for row in rows]
    width = max(k, int(torch.stack(counts).sum(dim=0).max()))
    before = torch.zeros_like(counts[0])
    keys = before.new_full((n_rows * width,), _LAST)
    for places, row, count in zip(found, rows, counts):
        first = before - (count.cumsum(0) - count) + width * torch.arange(n_rows, device=row.device)
        into = torch.arange(len(row), device=row.device) + first[row]
        keys[into] = _falling_keys(scores.take(places), places - row * n)
        before = before + count
    keys = keys.view(n_rows, width)
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=1)  # in place; several times as fast as torch's
    else:
        keys = keys.sort(dim=1).values
    best = keys[:, :k]
    none = best == _LAST
    return _scores_of(best).masked_fill(none, -torch.inf), (best & _LOW).masked_fill(none, 0)


def _falling_keys(scores: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(m,) int64, the smaller the higher the score, then the smaller the column."""
    bits = (scores + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0, its equal
    return ~torch.where(bits < 0, bits ^ _MAGNITUDE, bits) << 32 | columns


def _scores_of(keys: torch.Tensor) -> torch.Tensor:
    """The scores of :func:`_falling_keys`."""
    bits = ~(keys >> 32)
    return torch.where(bits < 0, bits ^ _MAGNITUDE, bits).int().view(torch.float32)
