"""RRD and DCD: the teacher's lists taught by the relaxed ranking loss."""

import logging
from time import perf_counter

import torch

from recbole_freqd.catalogue import Ranker, candidates, user_blocks
from recbole_freqd.listwise_sampling import UniformOutside, weighted_draw
from recbole_freqd.losses.base import LOSSES
from recbole_freqd.losses.listwise import (
    ListwiseLoss,
    blocks_of_lists,
    masked_logsumexp,
    mean_of_those,
    relaxed_ranking,
)
from recbole_freqd.rows import FeatureRows

logger = logging.getLogger(__name__)


class RelaxedRankingLoss(ListwiseLoss):
    """Base of RRD and DCD: a list in its order, before items whose order among them is free."""

    def lists_of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The ordered list (b, k) and the unordered one (b, l) of users; 0 is an empty place."""
        raise NotImplementedError

    def of_users(self, student: FeatureRows, user_ids: torch.Tensor) -> torch.Tensor:
        above, below = self.lists_of(user_ids)
        width = above.shape[1]
        items = torch.cat([above, below], dim=1).long()
        scores, there = student.scores(user_ids, items), items > 0
        rest = masked_logsumexp(scores[:, width:], there[:, width:])
        values = relaxed_ranking(scores[:, :width], there[:, :width], rest)
        return mean_of_those(values, there[:, :width].any(dim=1))


@LOSSES.register("RRD")
class RRDLoss(RelaxedRankingLoss):
    """Relaxed ranking distillation: some of the teacher's best items in order, before random ones.

    Of the teacher's top M items that a user has not trained on, K are drawn without replacement
    with chances proportional to exp(-r / T), r = 1 … M being the teacher's rank, and put in the
    teacher's order; L others are drawn uniformly from the items that are neither trained on nor in
    the top M. With the student's scores s_1 … s_K of the first and s'_1 … s'_L of the second,

        L_u = Σ_k [log(Σ_{l ≥ k} exp s_l + Σ_j exp s'_j) - s_k],    L = mean of L_u

    over the distinct users of the batch that have a list. Lists are drawn per epoch or, with
    ``resample="step"``, per batch; the teacher's top M are found once (M int32 a user, and as many
    for the items that are not drawn).

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer. The authors' code sums over distinct users beside a
        base loss that is a sum over B rows; their λ is beta = λ · (distinct users) / B here.
        k: K. uninteresting: L. top: M. temperature: T. sampling: ``"rank"`` as above, or
        ``"none"``: the teacher's first K, which the authors found to be no worse. resample:
        ``"epoch"`` or ``"step"``.

    Source: Kang, Hwang, Kweon & Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender
        System", CIKM 2020, section 4.2.
    Deviations from the authors' public code: a mean over users instead of a sum; the log-sum-exp is
        exact, where re-implementations clamp scores at 80; a user with fewer items than asked for
        has shorter lists; RecBole's padding and items that the teacher does not know are in none.

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
    _outside: UniformOutside

    def prepare(self) -> None:
        options = self.options
        plain = options["sampling"] == "none"
        top, _ = self.teacher_lists(max(options["top"], options["k"] if plain else 1))
        self._outside = UniformOutside(
            self.known_items.nonzero().flatten().cpu(), self.user_items, top
        )
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
        below = self._outside.sample(user_ids, self.options["uninteresting"], self.stream).int()
        if self.options["sampling"] == "none":
            return top[:, :k], below
        weights = self._log_weights.expand_as(top).masked_fill(top == 0, -torch.inf)
        places, there = weighted_draw(weights, k, self.stream)
        return top.gather(1, places).masked_fill(~there, 0), below


@LOSSES.register("DCD")
class DCDLoss(RelaxedRankingLoss):
    """Dual correction distillation, user side: what the student ranks too low before what too high.

    Of the teacher's top M items that a user has not trained on, item k = 0 … M-1 has rank σ_k in
    the student's own list of all the user's untrained items (0 is the best), so it is misjudged
    by d_k = (σ_k - k) / T: underestimated where that is positive, overestimated where negative. K
    are drawn without replacement from the underestimated, with chances proportional to tanh d_k,
    and K from the overestimated, proportional to tanh(-d_k). The first, in the teacher's order, are
    the list of :class:`RRDLoss` and the second come after it:

        L_u = Σ_k [log(Σ_{l ≥ k} exp s_l + Σ_j exp s'_j) - s_k],    L = mean of L_u

    over the distinct users of the batch that have an underestimated item. Lists are drawn per
    epoch, from the student as it ranks when the epoch starts: one pass over the catalogue.

    Args and errors are those of :class:`recbole_freqd.losses.base.DistillationLoss`; the options:
        beta: weight, applied by the trainer; public code sums over distinct users, so its λ is
        beta = λ · (distinct users) / B for batches of B rows. k: K. top: M. temperature: T.

    Source: Lee & Kim, "Dual Correction Strategy for Ranking Distillation in Top-N Recommender
        System", CIKM 2021, arXiv 2109.03459.
    Deviations: of the paper's three terms this is the user-side correction (L_UCD), as in public
        code: its base term is had by ``trainer: [RRD, DCD]``, the item-side correction (the same
        with users and items exchanged) is missing. From public code: trained items are masked
        in the student's list as they are in the teacher's, so a student that ranks as the teacher
        needs no correction; the underestimated items are in the teacher's order and not in that of
        the draw; nothing is drawn that is not misjudged (there, items of weight 1e-5 fill up short
        lists, and may be on both sides); σ_k is the number of items that score strictly higher;
        means instead of sums, and no clamp of the scores.

    Example:
        The defaults, in a config file::

            trainer: DCD
            dcd_beta: 0.01
            dcd_k: 40
            dcd_top: 500
            dcd_temperature: 10
    """

    method = "DCD"
    prefix = "dcd"
    _top: torch.Tensor
    _above: torch.Tensor
    _below: torch.Tensor

    def prepare(self) -> None:
        self.keep(_top=self.teacher_lists(self.options["top"])[0])

    def refresh(self, student: Ranker) -> None:
        start, parts = perf_counter(), []
        for users in user_blocks(*student.shape, student.device):
            top = self._top[users]
            delta = self._student_ranks(student, users, top) - torch.arange(
                top.shape[1], device=top.device
            )
            degree = torch.tanh(delta / self.options["temperature"]).masked_fill(top == 0, 0.0)
            parts.append([self._draw(top, degree), self._draw(top, -degree)])
        above, below = (torch.cat(part) for part in zip(*parts))
        self.keep(_above=above, _below=below)
        logger.debug("DCD: the student's ranks took %.1f s", perf_counter() - start)

    def lists_of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._above[user_ids], self._below[user_ids]

    def _student_ranks(
        self, student: Ranker, user_ids: torch.Tensor, items: torch.Tensor
    ) -> torch.Tensor:
        """(b, m) int64, how many untrained items of its user each item is behind."""
        scores = candidates(student, user_ids, self.user_items)
        scores[:, ~self.known_items] = -torch.inf
        own = scores.gather(1, items.long())
        if scores.device.type == "cpu":
            scores.numpy().sort(axis=1)  # in place; up to 15 times as fast as torch's
        else:
            scores = scores.sort(dim=1).values
        return scores.shape[1] - torch.searchsorted(scores, own, right=True)

    def _draw(self, top: torch.Tensor, degree: torch.Tensor) -> torch.Tensor:
        """(b, k) int32, items drawn in proportion to a degree where that is positive."""
        weights = degree.clamp(min=0.0).log()
        places, there = weighted_draw(weights, self.options["k"], self.stream)
        return top.gather(1, places).masked_fill(~there, 0)
