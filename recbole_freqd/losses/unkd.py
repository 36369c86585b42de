"""UnKD: unbiased knowledge distillation, by groups of popularity."""

import logging
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional as F
from typing_extensions import Unpack

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import candidate_blocks
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.over_scores import ScoreLoss
from recbole_freqd.losses.ranks import RankDraws
from recbole_freqd.losses.registration import LOSSES

logger = logging.getLogger(__name__)


class UnKDOptions(SharedOptions, total=False):
    """The keywords of :class:`UnKDLoss`; see its docstring."""

    beta: float
    groups: int
    pairs: int
    balance: float
    depth: int
    decay: float


@LOSSES.register("UnKD")
class UnKDLoss(ScoreLoss):
    """The teacher's order of pairs of items that are about equally popular.

    Items are sorted by their training interactions and cut into groups that have as many of them in
    total. With S_u the pairs (i⁺, i⁻) drawn for user u, both of one group, r the student's scores
    and σ the logistic function:

        L = mean over the rows u of the batch of (1 / |S_u|) Σ_{S_u} - log σ(r_ui⁺ - r_ui⁻).

    In each group the loss draws two independent ranks of the teacher's list of items that u has not
    interacted with, p_r proportional to exp(-r / decay), given that they differ. The better one is
    i⁺. Every batch draws new pairs. With A_g the mean popularity of group g, the n pairs are shared
    out in proportion to q_g^balance, q_g = max(0.1, (max A + min A - A_g) / Σ_g' (max A + min A -
    A_g')), rounded, what is missing one each to the most popular groups.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer; equal to the authors' ``kd_weight`` (means over rows,
        as there). groups: how many groups are meant; a very popular item is one for itself, so
        there may be others. pairs: n. balance: the authors' λ. depth: items kept for each user and
        group, which is n_users · groups · depth numbers of four bytes. decay: see above.

    Source: Chen, Chen, Feng, Zhou & He, "Unbiased Knowledge Distillation for Recommendation", WSDM
        2023; ``chengang95/UnKD``.
    Deviations from that code: lists of 300 instead of 1000 (ranks beyond have a chance of 3e-7);
        pairs for every batch instead of every epoch; items without any training interaction are in
        no group, since no teacher has learned anything about them; what is left over joins the
        last group only where there are more groups than meant already; a user's group with fewer
        than two candidates is passed over; q is not rounded.

    Example:
        .. code:: yaml

            trainer: UnKD
            unkd_groups: 4
            unkd_pairs: 30
            unkd_beta: 0.5
    """

    method = "UnKD"
    prefix = "unkd"
    counts_rows = True
    list_ids: torch.Tensor
    list_lengths: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[UnKDOptions]) -> None:
        super().__init__(*data, **options)

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        if options.get("depth") == 1:
            raise ConfigError(
                "unkd_depth: got 1; allowed: int >= 2, since each pair takes two items."
            )

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        entries = user_items.tocoo()
        popularity = np.bincount(entries.col[entries.data != 0], minlength=user_items.shape[1])
        popularity[0] = 0
        groups = popularity_groups(popularity, self.options["groups"])
        if not groups:
            raise ConfigError("UnKD groups items by training interactions, but there are none.")
        means = np.array([popularity[items].mean() for items in groups])
        self.shares = pair_shares(means, self.options["pairs"], self.options["balance"])
        pairs = [share for share, items in zip(self.shares, groups) if len(items) > 1]
        if not any(pairs):
            raise ConfigError(
                f"unkd_groups: got {self.options['groups']}. That makes {len(groups)} groups of "
                f"one item each, or without a share of unkd_pairs = {self.options['pairs']}. So "
                "there is no pair to draw. Allowed: fewer groups, so that one has two items, or "
                "more pairs."
            )
        logger.info("UnKD: groups of %s items", ", ".join(str(len(items)) for items in groups))
        depth, n_users = self.options["depth"], user_items.shape[0]
        depth = min(depth, max(len(items) for items in groups))
        device = self.teacher_scores.device
        ids = torch.zeros(n_users, len(groups), depth, dtype=torch.int32, device=device)
        lengths = torch.zeros(n_users, len(groups), dtype=torch.int32, device=device)
        pools = [torch.from_numpy(items).to(device) for items in groups]
        for users, scores in candidate_blocks(
            self.teacher_scores,
            exclude=user_items,
            allowed=self.known_items,
            progress=self.progress,
            title="UnKD lists",
        ):
            for group, pool in enumerate(pools):
                best, place = scores[:, pool].topk(min(depth, len(pool)), dim=1)
                there = ~best.isneginf()
                ids[users, group, : best.shape[1]] = pool[place].where(there, 0).int()
                lengths[users, group] = there.sum(dim=1, dtype=torch.int32)
        self.keep(list_ids=ids, list_lengths=lengths)
        self.ranks = RankDraws.exponential(depth, self.options["decay"], device)

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        better, worse = self.draw_pairs(user_ids)
        there = worse > 0
        scores = student.scores(user_ids, torch.cat([better, worse], dim=1))
        above, below = scores.chunk(2, dim=1)
        losses = -F.logsigmoid(above - below).where(there, 0.0)
        return losses.sum(dim=1) / there.sum(dim=1).clamp(min=1), None

    def draw_pairs(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pairs of users (b,), group after group.

        Returns:
            (b, n) int64 each: the item that the teacher prefers, and the other; 0 and 0 where a
            group has fewer than two candidates.
        """
        better: list[torch.Tensor] = []
        worse: list[torch.Tensor] = []
        for group, count in enumerate(self.shares):
            limits = self.list_lengths[user_ids, group].long()
            items = self.list_ids[user_ids, group].long()
            for found, ranks in zip((better, worse), self.ranks.pairs(limits, count, self.stream)):
                found.append(items.gather(1, ranks).masked_fill(limits[:, None] < 2, 0))
        return torch.cat(better, dim=1), torch.cat(worse, dim=1)


def popularity_groups(popularity: np.ndarray, count: int) -> list[np.ndarray]:
    """Items by falling popularity, cut so that each group has at most its share of interactions.

    A group ends before its total would exceed 1/count of all (an item above that is alone). If that
    makes more than ``count`` groups and the last has at most half a share, it joins the one before.

    Args:
        popularity: (n_items,) int, interactions of each item; 0 for the padding.
        count: How many groups are meant.

    Returns:
        The ids of each group, most popular first; no group without any interaction.

    Example:
        >>> popularity_groups(np.array([0, 1, 4, 2, 0, 1]), 2)
        [array([2]), array([3, 1, 5])]
    """
    order = np.argsort(-popularity, kind="stable")[: int((popularity > 0).sum())]
    totals = np.cumsum(popularity[order])
    share, groups, start = popularity.sum() / count, [], 0
    while start < len(order):
        before = totals[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(totals, before + share, side="right")))
        groups.append(order[start:end])
        start = end
    if len(groups) > count and 2 * popularity[groups[-1]].sum() <= share:
        groups[-2:] = [np.concatenate(groups[-2:])]
    return groups


def pair_shares(mean_popularity: np.ndarray, n_pairs: int, balance: float) -> list[int]:
    """How many of the pairs each group gets, see :class:`UnKDLoss`.

    Example:
        >>> pair_shares(np.array([9.0, 1.0]), 10, 0.0), pair_shares(np.array([9.0, 1.0]), 10, 1.0)
        ([5, 5], [1, 9])
    """
    mirrored = mean_popularity.max() + mean_popularity.min() - mean_popularity
    weights = np.maximum(0.1, mirrored / mirrored.sum()) ** balance
    shares = np.rint(n_pairs * weights / weights.sum()).astype(int)
    shares[: max(0, n_pairs - shares.sum())] += 1
    return shares.tolist()
