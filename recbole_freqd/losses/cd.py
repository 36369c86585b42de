"""CD: collaborative distillation."""

from typing import Literal, Optional

import scipy.sparse as sp
import torch
from torch.nn import functional as F
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker, user_blocks
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import FreeItems
from recbole_freqd.losses.over_scores import ScoreLoss
from recbole_freqd.losses.ranks import RankDraws
from recbole_freqd.losses.registration import LOSSES


class CDOptions(SharedOptions, total=False):
    """The keywords of :class:`CDLoss`; see its docstring."""

    beta: float
    guide: Literal["student", "teacher", "random"]
    depth: int
    flatness: float
    samples: int
    temperature: float
    shift: float


@LOSSES.register("CD")
class CDLoss(ScoreLoss):
    """Soft labels of the teacher for items drawn by rank; higher ranks are drawn more often.

    With I_u the n items drawn for user u, r^T and r^S the scores of teacher and student, σ the
    logistic function and BCE(q, p) = - q log p - (1 - q) log(1 - p):

        L = mean over the rows u of the batch of Σ_{i in I_u} BCE(q_ui, σ(r^S_ui)),
        q_ui = σ((r^T_ui + t₂) / t₁).

    I_u are the winners of tournaments. A tournament draws two of the first N ranks independently,
    p_r proportional to exp(-r / (N · flatness)), from the guide's list of items that u has not
    interacted with. The better one wins. A new winner replaces a repeated one. The guide is the
    student (new lists, and so a new I_u, in every epoch), the teacher (one draw of I_u), or random
    (one uniform draw of I_u without replacement).

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer; equal to the public code's λ (its sums over rows are
        means here, in the base loss too). guide: see above. depth: N, at most the number of items.
        flatness: see above. samples: n. temperature: t₁. shift: t₂.

    Source: Lee, Choi, Lee & Shim, "Collaborative Distillation for Top-N Recommendation", ICDM 2019;
        settings as in the repository ``woriazzc/KDs``.
    Deviations from that code: winners are indeed distinct (there, a set of tensors never finds a
        repeat); uniform draws leave out training items; BCE with logits, without 1e-10 in the
        logarithm; a user with fewer than n candidates has all of them; lists and draws leave out
        items that the teacher does not know; a mean over rows.

    Example:
        .. code:: yaml

            trainer: CD
            cd_guide: student
            cd_samples: 2
            cd_temperature: 2.0
            cd_beta: 0.5
    """

    method = "CD"
    prefix = "cd"
    counts_rows = True
    drawn_ids: torch.Tensor
    labels: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[CDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        count = min(self.options["samples"], user_items.shape[1] - 1)
        shape, device = (user_items.shape[0], count), self.teacher_scores.device
        self.keep(
            drawn_ids=torch.zeros(shape, dtype=torch.int32, device=device),
            labels=torch.zeros(shape, device=device),
        )
        depth = min(self.options["depth"], user_items.shape[1] - 1)
        self.ranks = RankDraws.exponential(depth, depth * self.options["flatness"], device)
        if self.options["guide"] == "teacher":
            self._draw(self.teacher_scores)
        elif self.options["guide"] == "random":
            free = FreeItems(user_items, device, allowed=self.known_items)
            for users in user_blocks(*self.teacher_scores.shape, device):
                self._note(users, free.draw_distinct(users, count, self.stream))

    def refresh(self, student: Ranker) -> None:
        if self.options["guide"] == "student":
            self._draw(student)

    def _draw(self, guide: Ranker) -> None:
        """Draws items from a guide's lists, and asks the teacher to score them."""
        depth, count = len(self.ranks.cdf), self.drawn_ids.shape[1]
        for users, top in self.lists.top_blocks(
            guide,
            depth,
            exclude=self.user_items,
            allowed=self.known_items,
            stand_ins=self.stand_ins(guide),
            progress=self.progress,
            title="CD items",
        ):
            limits = (top.ids > 0).sum(dim=1)
            ranks = self.ranks.tournaments(limits, count, self.stream, distinct=True)
            items = top.ids.gather(1, ranks.clamp(min=0)).masked_fill(ranks < 0, 0)
            self._note(users, items)

    def _note(self, users: torch.Tensor, items: torch.Tensor) -> None:
        """Stores items (b, n) and their soft labels."""
        scores = self.teacher_scores.at(users, items.long())
        self.drawn_ids[users] = items.int()
        shifted = (scores + self.options["shift"]) / self.options["temperature"]
        self.labels[users] = shifted.sigmoid()

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        items = self.drawn_ids[user_ids].long()
        scores = student.scores(user_ids, items)
        labels = self.labels[user_ids].to(scores.dtype)
        losses = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        return losses.where(items > 0, 0.0).sum(dim=1), None
