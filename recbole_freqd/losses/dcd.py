"""DCD: teaches items that the student ranks too low before items that it ranks too high."""

import logging
from time import perf_counter
from typing import Any, Optional, Union

import scipy.sparse as sp
import torch
from torch import nn
from typing_extensions import Unpack

from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import Ranker, candidates, user_blocks
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows, Features, as_rows
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.draws import weighted_draw
from recbole_freqd.losses.over_scores import weighted_mean
from recbole_freqd.losses.registration import LOSSES
from recbole_freqd.losses.rrd import RelaxedRankingLoss, relaxed_losses

logger = logging.getLogger(__name__)


class Corrections(nn.Module):
    """Draws what a student misjudges in a teacher's lists, for every user; exchanged, every item.

    Args:
        teacher: The teacher's scores, (n, m).
        trained: (n, m) sparse, the training pairs; no list holds them.
        allowed: (m,) bool, the only items that lists may hold.
        options: The options of DCD.
        stream: Draws the lists.
        progress: Whether to show a bar.
        lists: Makes the teacher's lists.
        stand_ins: See :meth:`recbole_freqd.core.lists.ListMaker.top_blocks`.
    """

    _allowed: torch.Tensor
    _top: torch.Tensor
    _above: torch.Tensor
    _below: torch.Tensor

    def __init__(
        self,
        teacher: Ranker,
        trained: sp.csr_array,
        allowed: torch.Tensor,
        options: dict[str, Any],
        stream: RandomStream,
        progress: bool,
        lists: ListMaker,
        stand_ins: Optional[Features],
    ) -> None:
        super().__init__()
        self.options, self.stream, self.trained = options, stream, trained
        top = lists.top_items(
            teacher,
            options["top"],
            exclude=trained,
            allowed=allowed,
            stand_ins=stand_ins,
            progress=progress,
            title="DCD lists",
        )
        self.register_buffer("_allowed", allowed, persistent=False)
        self.register_buffer("_top", top.ids, persistent=False)

    def refresh(self, student: Ranker) -> None:
        """Draws lists from the student as it ranks now."""
        start, parts = perf_counter(), []
        for ids in user_blocks(*student.shape, student.device):
            top = self._top[ids]
            delta = self._student_ranks(student, ids, top) - torch.arange(
                top.shape[1], device=top.device
            )
            degree = torch.tanh(delta / self.options["temperature"]).masked_fill(top == 0, 0.0)
            parts.append([self._draw(top, degree), self._draw(top, -degree)])
        for name, part in zip(("_above", "_below"), zip(*parts)):
            self.register_buffer(name, torch.cat(part), persistent=False)
        logger.debug("DCD: the student's ranks took %.1f s", perf_counter() - start)

    def lists_of(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, k) each, int32: items ranked too low, in the teacher's order, and items too high."""
        return self._above[ids], self._below[ids]

    def _student_ranks(
        self, student: Ranker, ids: torch.Tensor, listed: torch.Tensor
    ) -> torch.Tensor:
        """(b, m) int64, how many untrained ones are ahead of each listed one."""
        scores = candidates(student, ids, self.trained, self._allowed)
        own = scores.gather(1, listed.long())
        if scores.device.type == "cpu":
            scores.numpy().sort(axis=1)  # in place; up to 15 times as fast as torch's
        else:
            scores = scores.sort(dim=1).values
        return scores.shape[1] - torch.searchsorted(scores, own, right=True)

    def _draw(self, top: torch.Tensor, degree: torch.Tensor) -> torch.Tensor:
        """(b, k) int32, drawn in proportion to positive degrees."""
        weights = degree.clamp(min=0.0).log()
        places, there = weighted_draw(weights, self.options["k"], self.stream)
        return top.gather(1, places).masked_fill(~there, 0)


class DCDOptions(SharedOptions, total=False):
    """The keywords of :class:`DCDLoss`; see its docstring."""

    beta: float
    k: int
    top: int
    temperature: float
    item_side: bool


@LOSSES.register("DCD")
class DCDLoss(RelaxedRankingLoss):
    """Dual correction distillation: items that the student ranks too low before items too high.

    Of the teacher's top M items that a user has not trained on, item k = 0 … M-1 has rank σ_k in
    the student's own list of all the user's untrained items (0 is the best). So the student
    misjudges it by d_k = (σ_k - k) / T: it underestimates the item if that is positive, and
    overestimates it if negative. The loss draws K underestimated items without replacement, with
    chances proportional to tanh d_k, and K overestimated ones, proportional to tanh(-d_k). The
    first, in the teacher's order, are the list of :class:`RRDLoss`. The second come after it:

        L_u = Σ_k [log(Σ_{l ≥ k} exp s_l + Σ_j exp s'_j) - s_k].

    L_i is the same with users and items exchanged: it reads an item's top M users, among those who
    have training interactions. The loss is the mean of L_u over the distinct users of the batch
    with underestimated items. With ``item_side`` it adds the mean of L_i over the batch's distinct
    positive items with underestimated users. Every epoch draws new lists, from the student as it
    ranks when the epoch starts: one pass over the catalogue for each side.

    The item side needs scores that are products of features, and a student with rows of tables as
    features. It is left out for a teacher or a student with other scores. It is also left out for a
    student that computes its users from their histories, since the lists of a batch's items hold
    nearly all users. The log says so.

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer; public code sums over distinct users, so its λ is
        beta = λ · (distinct users) / B for batches of B rows. k: K. top: M. temperature: T.
        item_side: whether L_i counts, with the same settings.

    Source: Lee & Kim, "Dual Correction Strategy for Ranking Distillation in Top-N Recommender
        System", CIKM 2021, arXiv 2109.03459.
    Deviations: of the paper's three terms these are the corrections of both sides, weighted alike;
        ``trainer: [RRD, DCD]`` adds the base term. Public code has the user side only
        (``item_side: false``). Deviations from it: the student's list leaves out trained items, as
        the teacher's does, so a student that ranks as the teacher needs no correction; the
        underestimated items keep the teacher's order, not the order of the draw; only misjudged
        items are drawn (there, items of weight 1e-5 fill up short lists, and may be on both sides);
        σ_k is the number of items that score strictly higher; means instead of sums, and no clamp
        of the scores.

    Example:
        The defaults, in a config file::

            trainer: DCD
            dcd_beta: 0.01
            dcd_k: 40
            dcd_top: 500
            dcd_temperature: 10
            dcd_item_side: true
    """

    method = "DCD"
    prefix = "dcd"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[DCDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        self.of_user_side = self._corrections(
            self.teacher_scores, self.user_items, self.known_items
        )
        self.of_item_side: Optional[Corrections] = None
        teacher = self.teacher_scores.exchanged()
        if self.options["item_side"] and teacher is None:
            logger.warning("DCD: no item side, since the teacher's scores are not products.")
        elif self.options["item_side"] and teacher is not None:
            entries = self.user_items.tocoo()
            active = torch.zeros(teacher.shape[1], dtype=torch.bool)
            active[torch.from_numpy(entries.row[entries.data != 0]).long()] = True
            trained = sp.csr_array(self.user_items.T)
            self.of_item_side = self._corrections(teacher, trained, active.to(teacher.device))

    def _corrections(
        self, teacher: Ranker, trained: sp.csr_array, allowed: torch.Tensor
    ) -> Corrections:
        return Corrections(
            teacher,
            trained,
            allowed,
            self.options,
            self.stream,
            self.progress,
            self.lists,
            self.stand_ins(teacher),
        )

    def refresh(self, student: Ranker) -> None:
        self.of_user_side.refresh(student)
        if self.of_item_side is None:
            return
        exchanged = student.exchanged()
        if exchanged is None:
            logger.warning(
                "DCD: no item side, since the student's scores are not products of rows of "
                "tables: every step would compute nearly all users."
            )
            self.of_item_side = None
        else:
            self.of_item_side.refresh(exchanged)

    def lists_of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.of_user_side.lists_of(user_ids)

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        of_users = super().forward(student_features, user_ids, positive_item_ids, negative_item_ids)
        if self.of_item_side is None or len(user_ids) == 0 or len(positive_item_ids) == 0:
            return of_users
        student, items = as_rows(student_features).exchanged(), positive_item_ids.unique()
        losses, counted = relaxed_losses(student, items, *self.of_item_side.lists_of(items))
        return of_users + weighted_mean(losses, counted.long())
