"""PCKD's term: a student keeps its preferences behind its projectors."""

import logging
from typing import Any, Callable, Literal, Optional

import torch
from torch import nn

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.core.rng import RandomStream, derived_seed
from recbole_freqd.core.rows import FeatureRows, Features, as_rows, single_precision
from recbole_freqd.core.schema import method_keys
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.losses.base import DistillationLoss, SharedOptions
from recbole_freqd.losses.draws import weighted_draw
from recbole_freqd.losses.over_scores import (
    blocks_of_lists,
    cross_entropy,
    softmax_over,
    weighted_mean,
)

logger = logging.getLogger(__name__)
Project = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
_LISTED = 100  # items of the teacher's list
_SCALE = 10.0  # of the ranks: the chance of rank r goes with exp(-r / 10)


class PreferenceTerm(nn.Module):
    """Cross-entropy between a student's preferences before and behind its projectors.

    For each user u, the term draws Q items I_u without replacement from the teacher's top 100, with
    chances proportional to exp(-r / 10) for rank r = 1 … 100. With student rows s, which get no
    gradient, and the projectors P_U and P_I,

        L = mean_u CE(softmax_{i ∈ I_u} ⟨s_u, s_i⟩ / τ, softmax_{i ∈ I_u} ⟨P_U(s_u), P_I(s_i)⟩ / τ)

    over the distinct users of a batch that have two items or more. Every epoch draws anew. The
    lists are made once. A batch of b users projects at most b + bQ rows.

    Args:
        lists: (n_users, m) integer, the teacher's best items, best first; 0 is an empty place.
        items: Q, at least 2. tau: τ, positive. seed: Of the draws.

    Source: Zhu & Zhang, "Preference-Consistent Knowledge Distillation for Recommender System",
        TKDE 2025, arXiv 2311.04549, the list-wise form; ranks and defaults are those of the public
        code's config of BPR on CiteULike (``cpd``: guide teacher, T 10, 100 items, Q 5, τ 0.1).
    Deviations from that code: a mean over distinct users, where it sums over the batch's rows; an
        item has one dropout mask or choice of experts per batch, not one per occurrence; no list
        holds items that the teacher does not know. There the term goes with DE alone. Its use
        beside other losses, graph filters among them, is ours; it always reads unfiltered rows.
        The pair-wise form, and lists of the student, are left out.
    """

    _lists: torch.Tensor
    _drawn: torch.Tensor

    def __init__(self, lists: torch.Tensor, items: int, tau: float, seed: int) -> None:
        super().__init__()
        self.items, self.tau, self.seed = items, tau, seed
        self.register_buffer("_lists", lists, persistent=False)
        self.register_buffer("_drawn", lists[:, :0], persistent=False)
        self._epoch, self._epoch_drawn = 0, -1

    def start_epoch(self, epoch: int) -> None:
        """Lets the next batches use this epoch's items."""
        self._epoch = epoch

    def forward(
        self, student: FeatureRows, user_ids: torch.Tensor, project: Project
    ) -> torch.Tensor:
        """The term of one batch, a scalar without gradient for the student.

        Args:
            student: Its features.
            user_ids: (b,) int64, b > 0, repeats allowed.
            project: From a side, student rows (n, d) and their ids (n,) to (n, teacher_dim).
        """
        users = torch.unique(user_ids)
        listed = self.items_of(users)
        items, place = torch.unique(listed, return_inverse=True)
        with single_precision(user_ids.device):
            ids = users, items
            own = [student.of(side, some).detach() for side, some in zip(SIDES, ids)]
            behind = [project(*of_side) for of_side in zip(SIDES, own, ids)]
            there, every = listed > 0, torch.arange(len(users), device=users.device)
            before, after = (
                as_rows((rows[0], rows[1])).scores(every, place) / self.tau
                for rows in (own, behind)
            )
            values = cross_entropy(after, softmax_over(before, there), there)
        return weighted_mean(values, (there.sum(dim=1) > 1).long())

    def items_of(self, user_ids: torch.Tensor) -> torch.Tensor:
        """(b, Q) int64, the items of users (b,) in this epoch; 0 at empty places."""
        if self._epoch_drawn != self._epoch:
            # The epoch alone sets the seed, so that a resumed run draws the same.
            stream = RandomStream(derived_seed(self.seed, self._epoch, len(SIDES)))
            n_users, length = self._lists.shape
            blocks = blocks_of_lists(n_users, length, self._lists.device)
            self._drawn = torch.cat([self._draw(users, stream) for users in blocks])
            self._epoch_drawn = self._epoch
        return self._drawn[user_ids].long()

    def _draw(self, user_ids: torch.Tensor, stream: RandomStream) -> torch.Tensor:
        lists = self._lists[user_ids]
        ranks = torch.arange(1, lists.shape[1] + 1, device=lists.device)
        weights = (-ranks / _SCALE).expand(lists.shape).masked_fill(lists == 0, -torch.inf)
        places, there = weighted_draw(weights, self.items, stream)
        return lists.gather(1, places).masked_fill(~there, 0)


class PreferenceOptions(SharedOptions, total=False):
    """The keywords of :class:`PreferenceLoss`; see its docstring."""

    preference_beta: float
    preference_items: int
    preference_tau: float


class ProjectedOptions(PreferenceOptions, total=False):
    """The keywords of losses with a projector per side."""

    beta: float
    distance: Literal["cosine", "squared"]
    projector: Literal["mlp", "linear"]
    experts: int
    hidden: Optional[int]
    dropout: float
    weight_decay: float


class PreferenceLoss(DistillationLoss):
    """Base of losses that can have a :class:`PreferenceTerm` for their projectors.

    A subclass adds it to its own value by :meth:`with_preference`.

    Args and errors are those of :class:`DistillationLoss`; the options:
        preference_beta: weight of the term within the loss, which ``beta`` weighs as a whole; 0:
        no lists, no term. preference_items: Q. preference_tau: τ.

    Raises:
        ConfigError: User and item features of the teacher or the student differ in width, so that
            they have no products.
    """

    projectors: nn.ModuleDict

    def __init__(self, *data: Any, **options: Any) -> None:
        super().__init__(*data, **options)
        self.preference = self._make_preference() if self.options["preference_beta"] else None

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        super().check_options(options)
        idle = [key for key in ("preference_items", "preference_tau") if key in options]
        default = method_keys(cls.method)[f"{cls.prefix}_preference_beta"].default
        if idle and options.get("preference_beta", default) == 0:
            names = ", ".join(f"{cls.prefix}_{key}" for key in idle)
            logger.warning("%s: no effect without %s_preference_beta.", names, cls.prefix)

    def start_epoch(self, epoch: int, student: Optional[Any] = None) -> None:
        super().start_epoch(epoch, student)
        if self.preference is not None:
            self.preference.start_epoch(epoch)

    def project(self, side: str, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(n, teacher_dim), student rows (n, d) of ids through the projector of a side."""
        projector = self.projectors[side]
        return projector(rows.to(next(projector.parameters()).dtype))

    def with_preference(
        self, value: torch.Tensor, student: FeatureRows, user_ids: torch.Tensor
    ) -> torch.Tensor:
        """Adds the term, if the loss has one, to the loss ``value`` of a batch."""
        if self.preference is None or len(user_ids) == 0:
            return value
        term = self.preference(student, user_ids, self.project)
        return value + self.options["preference_beta"] * term

    def _make_preference(self) -> PreferenceTerm:
        options, teacher = self.options, (self.teacher_user_emb, self.teacher_item_emb)
        self._refuse_unequal_widths("teacher", tuple(table.shape[1] for table in teacher))
        self._refuse_unequal_widths("student", self.student_dims)
        top = self._teacher_lists(teacher, max(_LISTED, options["preference_items"]))
        return PreferenceTerm(
            top, options["preference_items"], options["preference_tau"], self.stream.seed
        )

    def _teacher_lists(self, teacher: Features, k: int) -> torch.Tensor:
        """(n_users, k) int32, the items of the largest products, training items among them."""
        known = torch.linalg.vector_norm(teacher[1], ord=torch.inf, dim=1) > 0
        known[0] = False
        ranker, title = FeatureRanker(*teacher), "Teacher's lists"
        found = self.lists.top_items(ranker, k, allowed=known, progress=self.progress, title=title)
        return found.ids

    def _refuse_unequal_widths(self, whose: str, widths: tuple[int, ...]) -> None:
        if widths[0] != widths[1]:
            raise ConfigError(
                f"{self.prefix}_preference_beta: got {self.options['preference_beta']}, but the "
                f"{whose}'s user features have {widths[0]} dimensions and its item features "
                f"{widths[1]}, so they have no products. Allowed: 0.0, or another {whose}."
            )
