"""KD: logit distillation on top lists."""

from typing import Literal, Optional

import scipy.sparse as sp
import torch
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker, TopItems
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.over_scores import ScoreLoss, cross_entropy, softmax_over
from recbole_freqd.losses.registration import LOSSES


class KDOptions(SharedOptions, total=False):
    """The keywords of :class:`KDLoss`; see its docstring."""

    beta: float
    guide: Literal["student", "teacher"]
    k: int
    temperature: float
    mask_train: bool


@LOSSES.register("KD")
class KDLoss(ScoreLoss):
    """Cross-entropy between the softmaxes of teacher and student over a top list.

    With Q_u the K best items of the guide for user u, r^T and r^S the scores of teacher and student
    and τ the temperature:

        L = mean over the rows u of the batch of
            - Σ_{i in Q_u} softmax(r^T_u / τ)_i log softmax(r^S_u / τ)_i.

    The guide is the student (new lists in every epoch, from one pass over the catalogue) or the
    teacher (lists made once). There is no factor τ², so gradients shrink as 1/τ² once τ is above
    the spread of the scores in a list.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer; equal to the public code's λ (its sums over rows are
        means here, in the base loss too). guide: ``"student"`` or ``"teacher"``. k: length of the
        lists; a user with fewer candidates has a shorter one. temperature: τ. mask_train: whether
        the lists leave out training items.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv
        1503.02531; for top-N recommendation as in the repository ``woriazzc/KDs``.
    Deviations from that code: the lists leave out training items, which fill the lists of busy
        users and are never recommended (``mask_train: false`` puts them back); no list holds items
        that the teacher does not know; a mean over rows; lists in blocks of users.

    Example:
        .. code:: yaml

            trainer: KD
            kd_guide: student
            kd_k: 50
            kd_temperature: 1.0
            kd_beta: 1.0
    """

    method = "KD"
    prefix = "kd"
    counts_rows = True
    list_ids: torch.Tensor
    list_chances: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[KDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        length = min(self.options["k"], user_items.shape[1] - 1)
        shape, device = (user_items.shape[0], length), self.teacher_scores.device
        self.keep(
            list_ids=torch.zeros(shape, dtype=torch.int32, device=device),
            list_chances=torch.zeros(shape, device=device),
        )
        if self.options["guide"] == "teacher":
            self._fill(self.teacher_scores)

    def refresh(self, student: Ranker) -> None:
        if self.options["guide"] == "student":
            self._fill(student)

    def _fill(self, guide: Ranker) -> None:
        """Stores the guide's lists, and the teacher's softmax over them."""
        exclude = self.user_items if self.options["mask_train"] else None
        length = self.list_ids.shape[1]
        for users, top in self.lists.top_blocks(
            guide,
            length,
            exclude=exclude,
            allowed=self.known_items,
            stand_ins=self.stand_ins(guide),
            progress=self.progress,
            title="KD lists",
        ):
            self.list_ids[users] = top.ids
            taught = self._of_teacher(guide, users, top) / self.options["temperature"]
            self.list_chances[users] = softmax_over(taught, top.ids > 0)

    def _of_teacher(self, guide: Ranker, users: torch.Tensor, top: TopItems) -> torch.Tensor:
        """(b, k), the teacher's scores of listed items; anything at empty places."""
        if guide is self.teacher_scores:
            return top.scores
        return self.teacher_scores.at(users, top.ids.long())

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        items = self.list_ids.index_select(0, user_ids)
        scores = student.scores(user_ids, items.long()) / self.options["temperature"]
        return cross_entropy(scores, self.list_chances.index_select(0, user_ids), items > 0), None
