"""RCE-KD: cross-entropy on the items that the student itself ranks high."""

import logging
from typing import Optional

import scipy.sparse as sp
import torch
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import weighted_draw
from recbole_freqd.losses.over_scores import ScoreLoss, cross_entropy, is_in, softmax_over
from recbole_freqd.losses.registration import LOSSES

logger = logging.getLogger(__name__)


class RCEKDOptions(SharedOptions, total=False):
    """The keywords of :class:`RCEKDLoss`; see its docstring."""

    beta: float
    k: int
    sampled: int
    top: int
    temperature: float
    cap: Optional[int]
    tau: float
    gamma: float
    mask_train: bool
    refresh: int
    step_users: Optional[int]


@LOSSES.register("RCE-KD")
class RCEKDLoss(ScoreLoss):
    """Rejuvenated cross-entropy: on the student's top items, and on the teacher's beside a sample.

    Each user has, from the start of every epoch: Qᵀ, the teacher's top K items; C, the student's
    top M; Qˢ, the first K of C; A, L items drawn from C without replacement. The chances are
    proportional to w_r = exp((min(c_r, cap) + 1) / T), where c_r counts the items of Qᵀ at rank r
    of C or behind it. So A prefers items that the student ranks above many of the teacher's. With
    scores divided by τ,

        L1 = CE(softmax of teacher on Qˢ, softmax of student on Qˢ),
        L2 = the same on J = A ∪ (Qᵀ \\ (A ∪ Qˢ)),
        L_u = (1 - γ_u) L1 + γ_u L2,    γ_u = exp(-gamma · |Qᵀ ∩ A| / |Qᵀ|),

    and L is the mean of L_u over the distinct users of the batch that have a list. The student's
    list, and the teacher's scores on it, take one pass over the catalogue per epoch.

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer: the authors' λ beside a base loss that is a mean over
        rows (their λ from 1 to 1e5 go with sums over rows on both sides). k: K. sampled: L. top: M.
        temperature: T. tau: τ. gamma: the β of the paper's γ. cap: of c_r, null is none.
        mask_train: whether all lists leave out a user's training items. refresh: how many epochs a
        user keeps lists and sample; every epoch renews those of its share of the users, the ids
        that leave the remainder epoch mod refresh. 1 is the paper's. Lists from an index begin so,
        too: in the first epochs the mean leaves out users without a list. step_users: the most
        distinct users of a batch that a step computes, null for all of them.

    Source: Zhu & Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender
        Systems", arXiv 2509.20989, 2025.
    Deviations from the authors' public code: softmax by log-softmax over masked lists, where plain
        exponentials overflow beyond 88; trained items are masked unless ``mask_train`` is false;
        distinct users instead of rows, where active users count more often; |Qᵀ| is the user's own
        if it has fewer than K; no list holds items that the teacher does not know. As there, γ_u
        counts the overlap with the sample A, where the paper's words suggest Qˢ.

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
    _has_lists = False
    _lists: torch.Tensor
    _chances: torch.Tensor
    _gamma: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[RCEKDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        options = self.options
        ids, scores = self.teacher_lists(options["k"], mask_train=options["mask_train"])
        self.keep(_teacher_ids=ids, _teacher_scores=scores)
        most = min(options["top"], user_items.shape[1] - 1)
        self._widths = min(options["k"], most), min(options["sampled"], most), ids.shape[1]
        shape, device = (len(ids), sum(self._widths)), ids.device
        self.keep(
            _lists=torch.zeros(shape, dtype=torch.int32, device=device),
            _chances=torch.zeros(shape, device=device),
            _gamma=torch.zeros(len(ids), device=device),
        )

    def refresh(self, student: Ranker) -> None:
        n_users, every = student.shape[0], self.options["refresh"]
        users = torch.arange(n_users, device=student.device)
        if self._has_lists or self.lists.is_beyond(student):
            users = users[self._epoch % every :: every]
        for some, top in self.lists.top_blocks(
            student,
            self.options["top"],
            users=users,
            exclude=self.user_items if self.options["mask_train"] else None,
            allowed=self.known_items,
            title="Student's lists",
        ):
            self._note(some, top.ids.long())
        self._has_lists = True
        level = logging.INFO if self.lists.is_beyond(student) else logging.DEBUG
        logger.log(level, "%s: new lists of %d of %d users.", self.method, len(users), n_users)

    def _note(self, user_ids: torch.Tensor, ranked: torch.Tensor) -> None:
        """Stores users' lists Qˢ, A and J \\ A, the teacher's softmax over them, and γ."""
        options, of_teacher = self.options, self._teacher_ids[user_ids]
        first, sample = ranked[:, : self._widths[0]], self._sample(ranked, of_teacher)
        in_sample = is_in(of_teacher, sample)
        added = (of_teacher > 0) & ~in_sample & ~is_in(of_teacher, first)
        overlap = in_sample.sum(dim=1) / (of_teacher > 0).sum(dim=1).clamp(min=1)
        drawn = torch.cat([first, sample], dim=1)
        lists = torch.cat([drawn, of_teacher.masked_fill(~added, 0)], dim=1)
        scores = [self.teacher_scores.at(user_ids, drawn), self._teacher_scores[user_ids]]
        taught, there = torch.cat(scores, dim=1) / options["tau"], lists > 0
        parts = slice(self._widths[0]), slice(self._widths[0], None)
        chances = [softmax_over(taught[:, part], there[:, part]) for part in parts]
        self._lists[user_ids], self._chances[user_ids] = lists.int(), torch.cat(chances, dim=1)
        self._gamma[user_ids] = torch.exp(-options["gamma"] * overlap)

    def _sample(self, ranked: torch.Tensor, of_teacher: torch.Tensor) -> torch.Tensor:
        """(b, l) int64, A of users, from C, (b, m), and Qᵀ, (b, k); 0 at empty places."""
        behind = is_in(ranked, of_teacher).flip(1).cumsum(dim=1).flip(1)
        if self.options["cap"] is not None:
            behind = behind.clamp(max=self.options["cap"])
        weights = (behind + 1) / self.options["temperature"]
        weights = weights.masked_fill(ranked == 0, -torch.inf)
        places, there = weighted_draw(weights, self.options["sampled"], self.stream)
        return ranked.gather(1, places).masked_fill(~there, 0)

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        lists = self._lists.index_select(0, user_ids)
        chances, there = self._chances.index_select(0, user_ids), lists > 0
        own = student.scores(user_ids, lists.long())
        if self.options["tau"] != 1.0:
            own = own / self.options["tau"]
        parts = slice(self._widths[0]), slice(self._widths[0], None)
        first, second = (
            cross_entropy(own[:, part], chances[:, part], there[:, part]) for part in parts
        )
        gamma = self._gamma[user_ids].to(own.dtype)
        return (1 - gamma) * first + gamma * second, there.any(dim=1)

    def epoch_state(self) -> dict[str, torch.Tensor]:
        if self.options["refresh"] == 1 or not self._has_lists:
            return {}
        return {"lists": self._lists, "chances": self._chances, "gamma": self._gamma}

    def load_epoch_state(self, state: dict[str, torch.Tensor]) -> None:
        self._has_lists = bool(state)
        for name, values in state.items():
            getattr(self, f"_{name}").copy_(values)
