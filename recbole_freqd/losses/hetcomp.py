"""HetComp: teaches rankings from the course of the teacher's training, easy ones first."""

import logging
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import Unpack

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import BUDGET_BYTES, Ranker, candidates, user_blocks
from recbole_freqd.core.rows import FeatureRows, single_precision
from recbole_freqd.losses.base import LossData, SharedOptions
from recbole_freqd.losses.over_scores import (
    ScoreLoss,
    is_in,
    masked_logsumexp,
    negligible_score,
    relaxed_ranking,
)
from recbole_freqd.losses.registration import LOSSES

_EVERY, _MOVES = 10, 30  # the authors' p, and how often it is to fit into a shorter training

logger = logging.getLogger(__name__)


class HetCompOptions(SharedOptions, total=False):
    """The keywords of :class:`HetCompLoss`; see its docstring."""

    beta: float
    k: int
    earlier: int
    positives: int
    every: Optional[int]
    alpha: float


@LOSSES.register("HetComp")
class HetCompLoss(ScoreLoss):
    """Easy-to-hard distillation along the trajectory of a teacher's training.

    The teacher has V checkpoints v = 0 … V-1; the last is the converged one. Each gives every user
    a list of K items that the user has not trained on. The list of checkpoint v_u teaches user u;
    v_u begins at 0. Pos are the first P of the user's training items in the converged teacher's
    order; M_u all items but the trained ones; E^X the log-sum-exp of the student's scores over M_u
    \\ X.

    While some user is not at the last checkpoint, each item is set against all others for itself:

        L_u = 2 Σ_{i ∈ Pos ∪ Top} [log(exp E^Top + exp s_i) - s_i],

    afterwards the order counts, with H the first K/2 of the list and D its first K/10:

        L_u = R(Pos | E^H) + ½ [R(H | E^H) + R(D | E^D)],
        R(X | E) = Σ_k [log(Σ_{l ≥ k} exp x_l + exp E) - x_k];

    L is the mean of L_u over the distinct users of the batch that have a list. Every ``every``
    epochs, D(u, v) is how far the student's first K untrained items are from the list of
    checkpoint v: 1 - Σ_t 1[item t is in the list] g_t / Σ_t g_t, g_t = (2^{exp(-t/10)} - 1) /
    log₂(t + 2). The first time D(u, v_u + 1) is only noted; afterwards v_u rises by 1, and D is
    noted anew, when the noted value is more than alpha · 0.995^(epoch // every) times today's
    (the student has learnt on its own what comes next), or less than today's.

    This is the one loss whose step costs (users of the batch) × n_items: E is a softmax over the
    whole catalogue. Where that does not fit into a memory budget it is computed in blocks of users,
    and again for the gradient; for a student whose scores are no dot products, in one piece.

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`, with
    ``teacher_trajectory``: a recipe with ``teacher.keep_every`` makes one. The options:
        beta: weight, applied by the trainer: the authors' λ · (users) / B beside a base loss that
        is a mean over B rows. k: K. earlier: V - 1, taken at even distances, from the first of the
        checkpoints that were kept before the best epoch to the converged one. positives: P. every:
        epochs between moves; null is a 30th of ``epochs``, from 1 to the authors' 10 (by hand, 10).
        alpha: see above. At 1.05 the factor of D falls below 1 after ten times ``every`` epochs:
        from then on whoever is not at the end moves each time, so that three checkpoints are
        through after 11 times ``every``. The first move is after twice ``every``.

    Raises:
        ConfigError: There is no trajectory; K is not below the number of items that any user has
            not trained on.

    Source: Kang, Kweon, Lee, Lian, Xie & Yu, "Distillation from Heterogeneous Models for Top-K
        Recommendation", WWW 2023.
    Deviations: one teacher's trajectory instead of that of six models, and the student's base loss
        is kept, as in public re-implementations; a mean over distinct users; E by a log-sum-exp of
        what is in it, where public code subtracts sums of clamped exponentials and loses it; Pos
        and Top are of the user's own length; the trajectory ends with the converged teacher; a user
        whose D is 0 moves on.

    Example:
        In a config file::

            trainer: HetComp
            hetcomp_beta: 0.005
            hetcomp_k: 50
            teacher:
              model: BPR
              embedding_size: 64
              keep_every: 10
    """

    method = "HetComp"
    prefix = "hetcomp"
    reads_trajectory = True
    _lists: torch.Tensor
    _positives: torch.Tensor
    _gains: torch.Tensor
    _place: torch.Tensor
    _noted: torch.Tensor
    _started: torch.Tensor

    def __init__(self, *data: Unpack[LossData], **options: Unpack[HetCompOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        self._check_lengths()
        self.every = self.options["every"] or self._spread()
        if self.epochs is not None and self.epochs <= 2 * self.every:
            logger.warning(
                "HetComp: users move to harder lists from epoch %d on (twice hetcomp_every), and "
                "epochs is %d: only the first checkpoint will teach.",
                2 * self.every,
                self.epochs,
            )
        makers = self._chosen()
        lists = [self._list_of(make()) for make in makers] + [self._list_of(self.teacher_scores)]
        t = torch.arange(lists[0].shape[1], device=lists[0].device)
        gains = (2.0 ** torch.exp(-t / 10) - 1) / torch.log2(t + 2.0)
        self.keep(_lists=torch.stack(lists), _positives=self._ranked_positives(), _gains=gains)
        # The checkpoint of every user lasts over epochs: it is part of the state.
        n_users, device = len(lists[0]), lists[0].device
        self.register_buffer("_place", torch.zeros(n_users, dtype=torch.int64, device=device))
        self.register_buffer("_noted", torch.zeros(n_users, device=device))
        self.register_buffer("_started", torch.zeros((), dtype=torch.bool, device=device))
        self._finished: Optional[bool] = None

    def _spread(self) -> int:
        """The default number of epochs between moves."""
        return _EVERY if self.epochs is None else max(1, min(_EVERY, self.epochs // _MOVES))

    def _check_lengths(self) -> None:
        """Checks that lists leave items to rank behind them."""
        entries = self.user_items.tocoo()
        known = self.known_items.cpu().numpy()
        counted = (entries.data != 0) & known[entries.col]
        trained = np.bincount(entries.row[counted], minlength=self.user_items.shape[0])
        left = (known.sum() - trained)[1:]
        covered = int(((left > 0) & (left <= self.options["k"])).sum())
        if left.max(initial=0) <= self.options["k"]:
            raise ConfigError(
                f"hetcomp_k: got {self.options['k']}; allowed: below {left.max(initial=0)}, the "
                "most items that a user has not trained on. A list ranks before all other items, "
                "and here no other item is left."
            )
        if covered:
            logger.warning(
                "HetComp: %d users have no more than hetcomp_k = %d untrained items. Their lists "
                "hold all of them: nothing is left to rank behind these until the last stage.",
                covered,
                self.options["k"],
            )

    def _chosen(self) -> list[Any]:
        found = list(self.teacher_trajectory)
        if not found:
            raise ConfigError(
                "HetComp follows the teacher's training, but there is no checkpoint from before "
                "its best epoch. Allowed: a recipe that keeps some, with teacher.keep_every: "
                "epochs between them, below the number of its best epoch."
            )
        wanted = min(self.options["earlier"], len(found))
        places = torch.linspace(0, len(found), wanted + 1)[:-1].round().long().tolist()
        return [found[place] for place in places]

    def _list_of(self, ranker: Ranker) -> torch.Tensor:
        found = self.lists.top_items(
            ranker,
            self.options["k"],
            exclude=self.user_items,
            allowed=self.known_items,
            stand_ins=self.stand_ins(ranker),
            progress=self.progress,
            title="Trajectory",
        )
        return found.ids

    def _ranked_positives(self) -> torch.Tensor:
        """(n_users, P) int32, training items in the teacher's order; 0 at empty places."""
        parts, teacher = [], self.teacher_scores
        most = min(self.options["positives"], teacher.shape[1])
        for users in user_blocks(*teacher.shape, teacher.device):
            scores = candidates(teacher, users)
            trained = self._trained(users)
            only = torch.full_like(scores, -torch.inf)
            only[trained] = scores[trained]
            best, items = only.topk(most, dim=1)
            parts.append(items.masked_fill(best.isneginf(), 0).int())
        return torch.cat(parts)

    def _trained(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The training interactions of users (b,) as rows (in 0 … b-1) and items."""
        part = self.user_items[user_ids.cpu().numpy()].tocoo()
        places = part.row, part.col
        row, item = (torch.from_numpy(ids).long().to(user_ids.device) for ids in places)
        return row, item

    # --- the curriculum -----------------------------------------------------------------------

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        self._finished = None
        super().start_epoch(epoch, student)

    def refresh(self, student: Ranker) -> None:
        if self._epoch == 0 or self._epoch % self.every:
            return
        last = len(self._lists) - 1
        for users in user_blocks(*student.shape, student.device):
            best = candidates(student, users, self.user_items, self.known_items)
            scores, items = best.topk(self._lists.shape[2], dim=1)
            items = items.masked_fill(scores.isneginf(), 0)
            place = self._place[users]
            distance = self._distance(items, users, (place + 1).clamp(max=last))
            if not self._started:
                self._noted[users] = distance
                continue
            noted, share = self._noted[users], self.options["alpha"]
            share *= 0.995 ** (self._epoch // self.every)
            moves = (noted > share * distance) | (noted < distance) | (distance == 0)
            moves &= place < last
            place = place + moves
            after = self._distance(items, users, (place + 1).clamp(max=last))
            self._place[users] = place
            self._noted[users] = torch.where(moves, after, noted)
        self._started.fill_(True)
        counts = torch.bincount(self._place[1:], minlength=last + 1).tolist()
        logger.info("HetComp: users by checkpoint of the teacher: %s", counts)

    def _distance(
        self, items: torch.Tensor, user_ids: torch.Tensor, place: torch.Tensor
    ) -> torch.Tensor:
        """D (b,) of a student's lists (b, K) to those of a checkpoint (b,) for each user."""
        hit, there = is_in(items, self._lists[place, user_ids]), items > 0
        ideal = (there * self._gains).sum(dim=1)
        share = (hit * self._gains).sum(dim=1) / ideal.clamp(min=1e-12)
        return torch.where(ideal > 0, (1 - share).round(decimals=4), 0.0)

    # --- the loss -----------------------------------------------------------------------------

    def of_users(
        self, student: FeatureRows, user_ids: torch.Tensor
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        if self._finished is None:
            self._finished = bool((self._place[1:] == len(self._lists) - 1).all())
        positives, top = self._positives[user_ids], self._lists[self._place[user_ids], user_ids]
        half, tenth = max(top.shape[1] // 2, 1), max(top.shape[1] // 10, 1)
        top = top[:, :half] if self._finished else top
        items, n = torch.cat([positives, top], dim=1).long(), positives.shape[1]
        scores, there = student.scores(user_ids, items), items > 0
        rest = self._rest(student, user_ids, top)
        if not self._finished:
            terms = torch.where(there, F.softplus(rest[:, None] - scores), 0.0)
            return 2 * terms.sum(dim=1), there[:, n:].any(dim=1)
        liked, listed = (scores[:, :n], there[:, :n]), (scores[:, n:], there[:, n:])
        first, behind = ([part[:, :tenth] for part in listed], [part[:, tenth:] for part in listed])
        rest_of_first = torch.logaddexp(rest, masked_logsumexp(*behind)) if tenth < half else rest
        values = relaxed_ranking(liked[0], liked[1], rest)
        values = values + relaxed_ranking(listed[0], listed[1], rest) / 2
        values = values + relaxed_ranking(first[0], first[1], rest_of_first) / 2
        return values, listed[1].any(dim=1)

    def _rest(
        self, student: FeatureRows, user_ids: torch.Tensor, top: torch.Tensor
    ) -> torch.Tensor:
        """(b,), the log-sum-exp over all known items but the trained ones and those of the list."""
        everything = torch.arange(len(self.known_items), device=user_ids.device)
        if student.scorer is not None:
            scores = student.scores(user_ids, everything.expand(len(user_ids), -1))
            return self._masked_sum(scores, user_ids, top)
        users, items = student.of("user", user_ids), student.of("item", everything)
        if users.dtype in (torch.float16, torch.bfloat16):
            users, items = users.float(), items.float()
        size = max(1, BUDGET_BYTES // (16 * len(everything)))

        def of_block(
            some: torch.Tensor, ids: torch.Tensor, listed: torch.Tensor, all_items: torch.Tensor
        ) -> torch.Tensor:
            with single_precision(some.device):
                scores = student.with_biases(some @ all_items.T, ids, everything)
                return self._masked_sum(scores, ids, listed)

        if len(users) <= size:  # all that the gradient needs fits into the budget
            return of_block(users, user_ids, top, items)
        blocks = zip(users.split(size), user_ids.split(size), top.split(size))
        return torch.cat(
            [
                checkpoint(of_block, *block, items, use_reentrant=False, preserve_rng_state=False)
                for block in blocks
            ]
        )

    def _masked_sum(
        self, scores: torch.Tensor, user_ids: torch.Tensor, top: torch.Tensor
    ) -> torch.Tensor:
        out = (~self.known_items).repeat(len(scores), 1)
        out[self._trained(user_ids)] = True
        out.scatter_(1, top.long(), True)  # 0 is out anyway
        return scores.masked_fill(out, negligible_score(scores)).logsumexp(dim=1)
