"""RD: ranking distillation."""

from typing import Optional

import scipy.sparse as sp
import torch
from torch.nn import functional as F
from typing_extensions import Unpack

from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import FreeItems
from recbole_freqd.losses.over_scores import ScoreLoss
from recbole_freqd.losses.registration import LOSSES


class RDOptions(SharedOptions, total=False):
    """The keywords of :class:`RDLoss`; see its docstring."""

    beta: float
    k: int
    decay: float
    sharpness: float
    samples: int
    start: int


@LOSSES.register("RD")
class RDLoss(ScoreLoss):
    """Takes the teacher's top K as positives; weighs position, and how low the student ranks them.

    With π_uk the teacher's k-th item (k = 0, …, K-1) that user u has not interacted with, r the
    student's scores and σ the logistic function:

        L = mean over the rows u of the batch of - Σ_k w_uk log σ(r_u,π_uk),
        w_uk = a_k             in the first epochs,     a_k = exp(-k / Λ) / Σ_j exp(-j / Λ),
        w_uk = a_k b_uk        from epoch ``start`` on, b_uk = max(0, tanh(μ (ρ_uk - k))).

    ρ_uk estimates the student's rank of the item, from 0. For every batch it draws ``samples``
    items uniformly from the F_u items that the teacher knows and the user has not interacted with.
    ρ_uk is the share of them that scores higher, times F_u, rounded down. The weights pass no
    gradient.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer; the authors' α (both losses are means over rows). k:
        K. decay: Λ. sharpness: μ. samples: see above. start: b counts from this epoch on; epochs
        count from 0.

    Source: Tang & Wang, "Ranking Distillation: Learning Compact Ranking Models with High
        Performance for Recommender System", KDD 2018; ``graytowne/rank_distill``.
    Deviations from that code: both ranks count from 0 (other public versions mix 0 and 1); ranks
        are estimated among the items that can be recommended, F_u, and not all; samples for every
        batch; log σ without overflow; a user with fewer than K items has a shorter list, with
        weights a that still add up to 1. As there, and unlike later copies, w is not normalised.

    Example:
        .. code:: yaml

            trainer: RD
            rd_k: 10
            rd_sharpness: 0.1
            rd_start: 10
            rd_beta: 1.0
    """

    method = "RD"
    prefix = "rd"
    counts_rows = True
    list_ids: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[RDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        top = self.lists.top_items(
            self.teacher_scores,
            self.options["k"],
            exclude=user_items,
            allowed=self.known_items,
            stand_ins=self.stand_ins(self.teacher_scores),
            progress=self.progress,
            title="RD lists",
        )
        self.keep(list_ids=top.ids)
        self.free = FreeItems(user_items, top.ids.device, allowed=self.known_items)

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        items = self.list_ids[user_ids].long()
        scores = student.scores(user_ids, items)
        weights = self._position_weights(items, scores.dtype)
        if self._epoch >= self.options["start"]:
            weights = weights * self._discrepancy(student, user_ids, items, scores.detach())
        return -(weights * F.logsigmoid(scores)).sum(dim=1), None

    def _position_weights(self, items: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(b, K), a; 0 behind the end of a list."""
        position = torch.arange(items.shape[1], device=items.device, dtype=dtype)
        weights = torch.exp(-position / self.options["decay"]) * (items > 0)
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(dtype).tiny)

    def _discrepancy(
        self,
        student: FeatureRows,
        user_ids: torch.Tensor,
        items: torch.Tensor,
        scores: torch.Tensor,
    ) -> torch.Tensor:
        """(b, K), b, from the student's scores (b, K) of the listed items (b, K)."""
        count = self.options["samples"]
        drawn = self.free.draw(user_ids, count, self.stream)
        with torch.no_grad():
            others = student.scores(user_ids, drawn)
        # An item is never above itself, however rounding changed its two scores.
        above = (others[:, None] > scores[:, :, None]) & (drawn[:, None] != items[:, :, None])
        rank = above.sum(dim=2) * self.free.counts[user_ids, None] // count
        position = torch.arange(scores.shape[1], device=scores.device)
        return torch.tanh(self.options["sharpness"] * (rank - position)).clamp(min=0).to(scores)
