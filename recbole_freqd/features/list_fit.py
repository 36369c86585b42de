"""Fits features to a ranker's top lists in closed form: a student can start there."""

import logging
from dataclasses import replace
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import BUDGET_BYTES, FeatureRanker, Ranker, TopItems
from recbole_freqd.core.rows import Features
from recbole_freqd.features.approximation import Approximation, approximate_product

LENGTH = 50  # of the lists that are fitted
SWEEPS = 4  # of users and items in turn; more change validation scores in the fourth digit
_HARD = 100  # unlisted items per user that the features rank highest, drawn anew in each sweep
_FALL = 0.7  # of the target, from the head of a list to twice its length
_HARD_WEIGHT = 0.1
_REST_WEIGHT = 0.002
_RIDGE = 0.05
_ROWS_COMPARED = 4096
logger = logging.getLogger(__name__)


def fit_lists(
    start: Approximation,
    taught: Ranker,
    lists: ListMaker,
    user_items: sp.csr_array,
    *,
    top: Optional[TopItems] = None,
    stand_ins: Optional[Features] = None,
    biases: tuple[bool, bool] = (False, False),
    sweeps: int = SWEEPS,
    progress: bool = False,
) -> Approximation:
    """Features whose products order items as the head of a ranker's lists does.

    The best approximation of all scores spends its few dimensions on the long tail, which nobody
    sees. This one is weighted least squares on ranks. With K = 50 and ρ_r = log(1 + r) / log(2K),
    the item at rank r = 0, 1, ... of a user's list has the target 1 - 0.7 ρ_r and a weight in
    proportion to 1 - ρ_r, of mean 1. The 100 unlisted items that the features themselves rank
    highest have the target of rank 2K - 1, which is 0.3, and the weight 0.1. All others have the
    target 0 and the weight 0.002. A sweep solves for the users and then for the items, row by row
    and exactly, as implicit ALS does: the others enter by one Gram matrix. A sweep takes
    O((n_users (K + 100) + n_items) d²) operations. Ranks have no scale, so any ranker will do. In
    the end one factor gives the products the spread that the ranker's scores have within lists.

    Args:
        start: Where the first sweep begins, without biases; rows that it does not mask stay zero.
        taught: Who ranks.
        lists: Makes its lists, and those of the features.
        user_items: (n_users, n_items), the pairs that no list holds: the training interactions.
        top: The lists of ``taught``, of all users and at least 50 items, if they are made; None:
            make them.
        stand_ins: See :meth:`recbole_freqd.core.lists.ListMaker.top_blocks`.
        biases: See :func:`recbole_freqd.features.approximation.approximate`.
        sweeps: ≥ 1; the first one knows no hard items yet.
        progress: Whether to show bars.

    Returns:
        Both tables, of the width of ``start`` at most; ``share`` stays that of ``start``. A user
        without a list keeps its row of ``start``. An item of no list gets a zero row.

    Source: Hu, Koren & Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM
        2008, for the alternation and the Gram matrix. Targets, weights and hard items are ours,
        chosen on validation on ml-100k and CiteULike (docs/performance.md).
    """
    device = start.user_emb.device
    allowed = torch.from_numpy(start.masks[1]).to(device)
    if top is None:
        top = lists.top_items(
            taught,
            LENGTH,
            exclude=user_items,
            allowed=allowed,
            stand_ins=stand_ins,
            progress=progress,
            title="Lists to start from",
        )
    known = torch.from_numpy(start.masks[0]).to(device)
    ids = torch.where(known[:, None], top.ids[:, :LENGTH], 0)
    top = TopItems(ids, top.scores[:, :LENGTH])
    user_emb, item_emb = (table.float() for table in start.features)
    hard = torch.zeros((len(user_emb), 0), dtype=torch.int32, device=device)
    for sweep in range(sweeps):
        if sweep:
            own = lists.top_items(
                FeatureRanker(user_emb, item_emb),
                LENGTH + _HARD,
                exclude=user_items,
                allowed=allowed,
                progress=progress,
                title="Lists of the start",
            )
            hard = _unlisted(own.ids, top.ids)
        user_emb = _fit_users(user_emb, item_emb, top.ids, hard)
        item_emb = _fit_items(user_emb, item_emb, top.ids, hard)
    user_emb = user_emb * _factor(user_emb, item_emb, top)
    found = approximate_product((user_emb, item_emb), start.user_emb.shape[1], start.masks, biases)
    logger.info(
        "Start fitted to lists of %d items by %d sweeps of least squares.", top.ids.shape[1], sweeps
    )
    return replace(found, share=start.share)


def _targets(length: int, hard: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(length + hard,) float32 each, target and weight of an entry by its place."""
    rho = np.log1p(np.arange(length)) / np.log(2 * LENGTH)
    weight = (1 - rho) / (1 - rho).mean()
    targets = np.concatenate([1 - _FALL * rho, np.full(hard, 1 - _FALL)])
    weights = np.concatenate([weight, np.full(hard, _HARD_WEIGHT)])
    return torch.from_numpy(targets).float(), torch.from_numpy(weights).float()


def _unlisted(own: torch.Tensor, listed: torch.Tensor) -> torch.Tensor:
    """(n_users, k), the first of users' own items (n_users, k') that are not listed; 0: no more.

    Users without a list have none.
    """
    width = max(0, min(_HARD, own.shape[1] - listed.shape[1]))
    hard = torch.zeros((len(own), width), dtype=own.dtype, device=own.device)
    for some in torch.arange(len(own), device=own.device).split(_ROWS_COMPARED):
        mine, theirs = own[some], listed[some]
        there = (mine[:, :, None] == theirs[:, None, :]).any(dim=2)
        there |= (theirs[:, :1] == 0) | (mine == 0)
        first = there.to(torch.uint8).sort(dim=1, stable=True).indices[:, :width]
        hard[some] = mine.masked_fill(there, 0).gather(1, first)
    return hard


def _pairs(ids: torch.Tensor, shape: tuple[int, int]) -> sp.csr_array:
    """Lists (n_users, k) as a sparse matrix of ones."""
    counts = (ids > 0).sum(dim=1).cpu().numpy()
    indptr = np.concatenate([[0], np.cumsum(counts)])
    columns = ids[ids > 0].cpu().numpy()
    return sp.csr_array((np.ones(len(columns), dtype=np.float32), columns, indptr), shape=shape)


def _fit_users(
    user_emb: torch.Tensor, item_emb: torch.Tensor, listed: torch.Tensor, hard: torch.Tensor
) -> torch.Tensor:
    """The users' rows for these items; a user without a list keeps its own."""
    targets, weights = (
        part.to(user_emb.device) for part in _targets(listed.shape[1], hard.shape[1])
    )
    gram = _gram(item_emb)
    fitted = user_emb.clone()
    users = (listed > 0).any(dim=1).nonzero()[:, 0]
    for some in users.split(_rows_at_once(len(targets), user_emb.shape[1])):
        places = torch.cat([listed[some], hard[some]], dim=1).long()
        fitted[some] = _solve(item_emb[places], targets, weights * (places > 0), gram)
    return fitted


def _fit_items(
    user_emb: torch.Tensor, item_emb: torch.Tensor, listed: torch.Tensor, hard: torch.Tensor
) -> torch.Tensor:
    """The items' rows for these users, those of about as many users at once."""
    device, width = item_emb.device, item_emb.shape[1]
    targets, weights = (part.to(device) for part in _targets(listed.shape[1], hard.shape[1]))
    columns, users, places = _by_item(torch.cat([listed, hard], dim=1), len(item_emb))
    counts = np.diff(columns)
    gram = _gram(user_emb)
    fitted = torch.zeros_like(item_emb)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    while len(order):
        most = int(counts[order[0]])
        alike = int((counts[order] > most // 2).sum())  # at most half of the places are empty
        some, order = np.split(order, [min(alike, _rows_at_once(most, width))])
        asked = columns[some][:, None] + np.arange(most)
        there = np.arange(most) < counts[some][:, None]
        asked = np.where(there, asked, 0)
        place = torch.from_numpy(places[asked]).to(device).long()
        weight = weights[place] * torch.from_numpy(there).to(device)
        rows = user_emb[torch.from_numpy(users[asked]).to(device).long()]
        fitted[torch.from_numpy(some).to(device)] = _solve(rows, targets[place], weight, gram)
    return fitted


def _by_item(ids: torch.Tensor, n_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists (n_users, k) by item: bounds (n_items + 1,), users and places in their lists (p,)."""
    shape = len(ids), n_items
    pairs = _pairs(ids, shape)
    there = (ids > 0).cpu().numpy()
    places = np.broadcast_to(np.arange(ids.shape[1], dtype=np.uint8), there.shape)[there]
    turned = sp.csr_array((places, pairs.indices, pairs.indptr), shape=shape).tocsc()
    return turned.indptr, turned.indices, turned.data


def _gram(table: torch.Tensor) -> torch.Tensor:
    """(d, d), what all pairs add to the normal equations, and the ridge."""
    ridge = _RIDGE * torch.eye(table.shape[1], device=table.device)
    return _REST_WEIGHT * (table.T @ table) + ridge


def _solve(
    rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, gram: torch.Tensor
) -> torch.Tensor:
    """(b, d), the best rows for entries (b, k, d) with targets and weights (b, k)."""
    weighted = (rows * weights[:, :, None]).transpose(1, 2)
    wanted = weighted @ targets.expand(weights.shape)[:, :, None]
    return torch.linalg.solve(weighted @ rows + gram, wanted)[:, :, 0]


def _rows_at_once(entries: int, width: int) -> int:
    return max(1, BUDGET_BYTES // (8 * entries * width))


def _factor(user_emb: torch.Tensor, item_emb: torch.Tensor, top: TopItems) -> float:
    """What gives the features' scores the ranker's spread within its lists; 1 where it has none."""
    users = (top.ids > 0).any(dim=1).nonzero()[:, 0]
    ids = top.ids[users].long()
    own = FeatureRanker(user_emb, item_emb).at(users, ids)
    wanted, made = (_spread(scores.float(), ids > 0) for scores in (top.scores[users], own))
    return wanted / made if wanted > 0 and made > 0 else 1.0


def _spread(scores: torch.Tensor, there: torch.Tensor) -> float:
    """The mean over lists (b, k) of the standard deviation of those scores that are there."""
    if len(scores) == 0:
        return 0.0
    count = there.sum(dim=1, keepdim=True)
    scores = scores.masked_fill(~there, 0)
    off = (scores - scores.sum(dim=1, keepdim=True) / count).masked_fill(~there, 0)
    return float((off.square().sum(dim=1) / count[:, 0]).sqrt().mean())
