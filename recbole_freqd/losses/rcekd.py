"""RCE-KD: cross-entropy on the items that the student itself ranks high."""

from typing import Optional

import scipy.sparse as sp
import torch
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker, candidates, user_blocks
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import weighted_draw
from recbole_freqd.losses.over_scores import ScoreLoss, cross_entropy, is_in
from recbole_freqd.losses.registration import LOSSES


class RCEKDOptions(SharedOptions, total=False):
    """What :class:`RCEKDLoss` takes by keyword; its docstring says what it is."""

    beta: float
    k: int
    sampled: int
    top: int
    temperature: float
    cap: Optional[int]
    tau: float
    gamma: float
    mask_train: bool


@LOSSES.register("RCE-KD")
class RCEKDLoss(ScoreLoss):
    """Rejuvenated cross-entropy: on the student's top items, and on the teacher's beside a sample.

    Of each user, at the start of every epoch: Qᵀ, the teacher's top K items; C, the student's top
    M; Qˢ, the first K of C; A, L items of C drawn without replacement with chances proportional to
    w_r = exp((min(c_r, cap) + 1) / T), c_r being the number of items of Qᵀ at rank r of C or
    behind it: items that the student ranks above many of the teacher's. With scores divided by τ,

        L1 = CE(softmax of teacher on Qˢ, softmax of student on Qˢ),
        L2 = the same on J = A ∪ (Qᵀ \\ (A ∪ Qˢ)),
        L_u = (1 - γ_u) L1 + γ_u L2,    γ_u = exp(-gamma · |Qᵀ ∩ A| / |Qᵀ|),

    and L is the mean of L_u over the distinct users of the batch that have a list. The student's
    list, and the teacher's scores on it, take one pass over the catalogue per epoch.

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer: the authors' λ beside a base loss that is a mean over
        rows (their λ from 1 to 1e5 go with sums over rows on both sides). k: K. sampled: L. top: M.
        temperature: T. tau: τ. gamma: the β of the paper's γ. cap: of c_r, null is none.
        mask_train: whether items that a user has trained on are left out of all lists.

    Source: Zhu & Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender
        Systems", arXiv 2509.20989, 2025.
    Deviations from the authors' public code: softmax by log-softmax over masked lists, where plain
        exponentials overflow beyond 88; trained items are masked unless ``mask_train`` is false;
        distinct users instead of rows, where active users count more often; |Qᵀ| is that of the
        user, where it has fewer than K; items that the teacher does not know are in no list. As
        there, γ_u counts the overlap with the sample A, where the paper's words suggest Qˢ.

    Example:
        The defaults, in a config file::

            trainer: RCE-KD
            rcekd_beta: 10.0
            rcekd_k: 50
            rcekd_sampled: 50
            rcekd_top: 200
            rcekd_gamma: 3.0
    """

    method = "RCE-KD"
    prefix = "rcekd"
    _teacher_ids: torch.Tensor
    _teacher_scores: torch.Tensor
    _student_ids: torch.Tensor
    _student_scores: torch.Tensor
    _is_added: torch.Tensor
    _gamma: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[RCEKDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        options = self.options
        ids, scores = self.teacher_lists(options["k"], mask_train=options["mask_train"])
        self.keep(_teacher_ids=ids, _teacher_scores=scores)

    def refresh(self, student: Ranker) -> None:
        blocks = user_blocks(*student.shape, student.device)
        parts = [self._lists_of(student, users) for users in blocks]
        names = "_student_ids", "_student_scores", "_is_added", "_gamma"
        self.keep(**{name: torch.cat(part) for name, part in zip(names, zip(*parts))})

    def _lists_of(self, student: Ranker, user_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of users: Qˢ and A side by side, int32, the teacher's scores of them, J \\ A in Qᵀ, γ."""
        options, of_teacher = self.options, self._teacher_ids[user_ids]
        ranked = self._ranked(student, user_ids)
        common = is_in(ranked, of_teacher)
        behind = common.flip(1).cumsum(dim=1).flip(1)
        if options["cap"] is not None:
            behind = behind.clamp(max=options["cap"])
        weights = ((behind + 1) / options["temperature"]).masked_fill(ranked == 0, -torch.inf)
        places, there = weighted_draw(weights, options["sampled"], self.stream)
        sample = ranked.gather(1, places).masked_fill(~there, 0)
        first = ranked[:, : options["k"]]
        in_sample = is_in(of_teacher, sample)
        added = (of_teacher > 0) & ~in_sample & ~is_in(of_teacher, first)
        overlap = in_sample.sum(dim=1) / (of_teacher > 0).sum(dim=1).clamp(min=1)
        lists = torch.cat([first, sample], dim=1)
        scores = self.teacher_scores.at(user_ids, lists)
        return lists.int(), scores, added, torch.exp(-options["gamma"] * overlap)

    def _ranked(self, student: Ranker, user_ids: torch.Tensor) -> torch.Tensor:
        """(b, m) int64, the student's best items of users, best first; 0 where there are fewer."""
        exclude = self.user_items if self.options["mask_train"] else None
        scores = candidates(student, user_ids, exclude, self.known_items)
        best, items = scores.topk(min(self.options["top"], scores.shape[1] - 1), dim=1)
        return items.masked_fill(best.isneginf(), 0)

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        lists, of_teacher = self._student_ids[user_ids], self._teacher_ids[user_ids]
        own = student.scores(user_ids, torch.cat([lists, of_teacher], dim=1).long())
        taught = torch.cat([self._student_scores[user_ids], self._teacher_scores[user_ids]], dim=1)
        there = torch.cat([lists > 0, self._is_added[user_ids]], dim=1)
        own, taught = own / self.options["tau"], taught / self.options["tau"]
        k = min(self.options["k"], self._first_width())
        first = cross_entropy(own[:, :k], taught[:, :k], there[:, :k])
        second = cross_entropy(own[:, k:], taught[:, k:], there[:, k:])
        gamma = self._gamma[user_ids].to(own.dtype)
        return (1 - gamma) * first + gamma * second, there.any(dim=1)

    def _first_width(self) -> int:
        """How long the student's list is at most."""
        return min(self.options["top"], self.teacher_scores.shape[1] - 1)
