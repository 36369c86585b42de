"""RRD: teaches the teacher's lists by the relaxed ranking loss."""

from typing import Literal, Optional

import scipy.sparse as sp
import torch
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import FreeItems, weighted_draw
from recbole_freqd.losses.over_scores import (
    ScoreLoss,
    blocks_of_lists,
    masked_logsumexp,
    relaxed_ranking,
)
from recbole_freqd.losses.registration import LOSSES


def relaxed_losses(
    student: FeatureRows, user_ids: torch.Tensor, above: torch.Tensor, below: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks lists in their order, before other items in any order.

    Args:
        student: Gives the scores.
        user_ids: (b,).
        above, below: (b, k) and (b, l), the ordered lists and the others; 0 is an empty place.

    Returns:
        (b,) each, the losses and, bool, who has an ordered list.
    """
    width = above.shape[1]
    items = torch.cat([above, below], dim=1).long()
    scores, there = student.scores(user_ids, items), items > 0
    rest = masked_logsumexp(scores[:, width:], there[:, width:])
    values = relaxed_ranking(scores[:, :width], there[:, :width], rest)
    return values, there[:, :width].any(dim=1)


class RelaxedRankingLoss(ScoreLoss):
    """Base of RRD and DCD: :func:`relaxed_losses` of lists."""

    def lists_of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The ordered list (b, k) and the unordered one (b, l) of users; 0 is an empty place."""
        raise NotImplementedError

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        return relaxed_losses(student, user_ids, *self.lists_of(user_ids))


class RRDOptions(SharedOptions, total=False):
    """The keywords of :class:`RRDLoss`; see its docstring."""

    beta: float
    k: int
    uninteresting: int
    top: int
    temperature: float
    sampling: Literal["rank", "none"]
    resample: Literal["epoch", "step"]


@LOSSES.register("RRD")
class RRDLoss(RelaxedRankingLoss):
    """Relaxed ranking distillation: some of the teacher's best items in order, before random ones.

    The loss draws K of the teacher's top M items that a user has not trained on, without
    replacement, with chances proportional to exp(-r / T) for the teacher's rank r = 1 … M. They
    keep the teacher's order. It draws L others uniformly from the items that are neither trained on
    nor in the top M. With the student's scores s_1 … s_K of the first and s'_1 … s'_L of the
    second,

        L_u = Σ_k [log(Σ_{l ≥ k} exp s_l + Σ_j exp s'_j) - s_k],    L = mean of L_u

    over the distinct users of the batch that have a list. Every epoch draws new lists; with
    ``resample="step"`` every batch does. The teacher's top M are found once (M int32 a user, and as
    many for the items that are not drawn).

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer. The authors' code sums over distinct users beside a
        base loss that is a sum over B rows; their λ is beta = λ · (distinct users) / B here.
        k: K. uninteresting: L. top: M. temperature: T. sampling: ``"rank"`` as above, or
        ``"none"``: the teacher's first K, which the authors found to be no worse. resample:
        ``"epoch"`` or ``"step"``.

    Source: Kang, Hwang, Kweon & Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender
        System", CIKM 2020, section 4.2.
    Deviations from the authors' public code: a mean over users instead of a sum; the log-sum-exp is
        exact, where re-implementations clamp scores at 80; a user with too few items has shorter
        lists; no list holds RecBole's padding, or items that the teacher does not know.

    Example:
        The defaults, in a config file::

            trainer: RRD
            rrd_beta: 0.01
            rrd_k: 40
            rrd_uninteresting: 40
            rrd_top: 500
            rrd_temperature: 10
    """

    method = "RRD"
    prefix = "rrd"
    _top: torch.Tensor
    _log_weights: torch.Tensor
    _above: torch.Tensor
    _below: torch.Tensor
    _free: FreeItems

    def __init__(self, *data: Unpack[LossData], **options: Unpack[RRDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        options = self.options
        plain = options["sampling"] == "none"
        top, _ = self.teacher_lists(max(options["top"], options["k"] if plain else 1))
        self._free = FreeItems(user_items, top.device, allowed=self.known_items, lists=top)
        ranks = torch.arange(1, top.shape[1] + 1, device=top.device)
        self.keep(_top=top, _log_weights=-ranks / options["temperature"])

    def refresh(self, student: Ranker) -> None:
        if self.options["resample"] == "step":
            return
        n_users, device = len(self._top), self._top.device
        length = self._top.shape[1] + 2 * self.options["uninteresting"]
        parts = [self._draw(users) for users in blocks_of_lists(n_users, length, device)]
        above, below = (torch.cat(part) for part in zip(*parts))
        self.keep(_above=above, _below=below)

    def lists_of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.options["resample"] == "step":
            return self._draw(user_ids)
        return self._above[user_ids], self._below[user_ids]

    def _draw(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The lists of users, int32."""
        top, k = self._top[user_ids], self.options["k"]
        below = self._free.draw_distinct(user_ids, self.options["uninteresting"], self.stream).int()
        if self.options["sampling"] == "none":
            return top[:, :k], below
        weights = self._log_weights.expand_as(top).masked_fill(top == 0, -torch.inf)
        places, there = weighted_draw(weights, k, self.stream)
        return top.gather(1, places).masked_fill(~there, 0), below
