"""FTD and HTD: distil the cosines between entities, not their features."""

from typing import Optional, Union

import scipy.sparse as sp
import torch
from typing_extensions import Unpack

from recbole_freqd.core.rows import FeatureRows, Features, as_rows, single_precision
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.losses.base import DistillationLoss, LossData, SharedOptions
from recbole_freqd.losses.de import ExpertLoss
from recbole_freqd.losses.distances import (
    mean_or_zero,
    refuse_one_dimension,
    unit_rows,
)
from recbole_freqd.losses.registration import LOSSES


def topology_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Σ_{a ≠ b} (cos(s_a, s_b) - cos(t_a, t_b))² over ordered pairs, without an n x n array.

    With rows of length 1 it is ‖ŜŜᵀ - T̂T̂ᵀ‖² = ‖ŜᵀŜ‖² - 2 ‖T̂ᵀŜ‖² + ‖T̂ᵀT̂‖², less the diagonal. The
    sum of the three is in float64, since they are large and their difference is small.

    Args:
        student: (n, d), any n; a zero row has cosine 0 with every other.
        teacher: (n, d').

    Returns:
        A float64 scalar.
    """
    s, t = unit_rows(student), unit_rows(teacher)
    # Constant. T̂ᵀT̂ and T̂T̂ᵀ have the same norm: take the smaller one.
    ours = t @ t.T if len(t) < t.shape[1] else t.T @ t
    parts = _squares(s.T @ s) - 2.0 * _squares(t.T @ s) + _squares(ours)
    return parts - _squares(s.square().sum(1) - t.square().sum(1))


def group_errors(
    student: torch.Tensor, teacher: torch.Tensor, groups: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`topology_error` over pairs in one group with a positive cosine of the teacher.

    A block per group, Σ_g n_g² in all.

    Args:
        student: (n, d). teacher: (n, d').
        groups: (n,) int64, the group of each row.

    Returns:
        The sum over ordered pairs of different rows, and the number of these.
    """
    s, t = unit_rows(student), unit_rows(teacher)
    order = groups.argsort()
    sizes = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    total, count = s.sum() * 0.0, s.new_zeros(())
    for members in order.split(sizes):
        ours = t[members] @ t[members].T
        ours.fill_diagonal_(-1.0)  # an entity is not a pair with itself
        kept = ours > 0
        errors = s[members] @ s[members].T - ours
        total = total + torch.where(kept, errors, 0.0).square().sum()
        count = count + kept.sum()
    return total, count


def prototypes(rows: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(g, d), the mean of the rows (n, d) of each group that occurs in ``groups`` (n,).

    Example:
        >>> prototypes(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([7, 7, 2])).tolist()
        [[8.0], [2.0]]
    """
    present, place, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(present), rows.shape[1]).index_add(0, place, rows)
    return sums / counts[:, None]


def prototype_errors(
    student: torch.Tensor, teacher: torch.Tensor, groups: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Σ_{g, x} (cos(P^S_g, s_x) - cos(P^T_g, t_x))², P_g the mean row of group g.

    Differentiable through the rows and through the student's prototypes.

    Args:
        student: (n, d). teacher: (n, d').
        groups: (n,) int64.

    Returns:
        The sum over groups and rows, and the number of these pairs.
    """
    cosines = [
        unit_rows(prototypes(rows, groups)) @ unit_rows(rows).T for rows in (student, teacher)
    ]
    return (cosines[0] - cosines[1]).square().sum(), cosines[0].numel()


def _squares(values: torch.Tensor) -> torch.Tensor:
    return values.double().square().sum()


def _joint_rows(
    user_rows: tuple[torch.Tensor, ...], item_rows: tuple[torch.Tensor, ...]
) -> list[tuple[torch.Tensor, ...]]:
    """Users and items as one set of rows, or as two if cosines between them do not exist.

    Args:
        user_rows, item_rows: Student, teacher, and anything else with a row or number per
            entity.
    """
    pairs = list(zip(user_rows, item_rows))
    if all(user.shape[1:] == item.shape[1:] for user, item in pairs):
        return [tuple(torch.cat(pair) for pair in pairs)]
    return [user_rows, item_rows]


def _distinct_items(
    positive_item_ids: torch.Tensor, negative_item_ids: Optional[torch.Tensor]
) -> torch.Tensor:
    if negative_item_ids is None:
        return torch.unique(positive_item_ids)
    return torch.unique(torch.cat([positive_item_ids, negative_item_ids]))


def _refuse_one_dimension(loss: DistillationLoss) -> None:
    for side, teacher in zip(SIDES, (loss.teacher_user_emb, loss.teacher_item_emb)):
        refuse_one_dimension(teacher.shape[1], side, f"{loss.method} teaches cosines", "")


class FTDOptions(SharedOptions, total=False):
    """The keywords of :class:`FTDLoss`; see its docstring."""

    beta: float


@LOSSES.register("FTD")
class FTDLoss(DistillationLoss):
    """Full Topology Distillation: the cosines between all entities of a batch.

    With E the distinct users and the distinct items (positive or negative) of the batch, n = |E|,
    t the teacher's rows and s the student's,

        L = 1 / (n (n - 1)) Σ_{a ≠ b ∈ E} (cos(s_a, s_b) - cos(t_a, t_b))²,

    users and items mixed, each pair in both orders; 0 if n < 2. Each model's cosines live in its
    own space, so there is no projector. If users and items have different widths, in the teacher or
    in the student, there is no cosine between them. Then the sum has only pairs of one side.

    Exact in O(n (d_T² + d_T d_S + d_S²)) time and O(d_T²) memory (:func:`topology_error`). A zero
    row has cosine 0 with every other.

    Args and errors are those of :class:`DistillationLoss`; the one option:
        beta: weight, applied by the trainer.

    Weight: the public code adds the sum over pairs, which grows with n², to a base loss that is a
    sum over B rows; here both are means, so beta is its lambda times n (n - 1) / B: lambda .001
    with B = 1024 and n = 3000 is about 9.

    Source: Kang, Hwang, Kweon & Yu, "Topology Distillation for Recommender System", KDD 2021.
    Deviations from the public code: a mean over pairs for the sum; no n x n arrays; zero rows give
        no NaN.

    Raises:
        ConfigError: Features of the teacher have one dimension.

    Example, of a config::

        trainer: FTD
        teacher: {checkpoint: saved/BPR-teacher.pth}
        ftd_beta: 10.0
    """

    method = "FTD"
    prefix = "ftd"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[FTDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        _refuse_one_dimension(self)

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student = as_rows(student_features)
        users, items = torch.unique(user_ids), _distinct_items(positive_item_ids, negative_item_ids)
        with single_precision(user_ids.device):
            sets = _joint_rows(
                self._rows("user", student, users), self._rows("item", student, items)
            )
            pairs = sum(len(rows) * (len(rows) - 1) for rows, _ in sets)
            total = torch.stack([topology_error(rows, teacher) for rows, teacher in sets]).sum()
            return (total / max(1, pairs)).to(sets[0][0].dtype)

    def _rows(
        self, side: str, student: FeatureRows, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = student.of(side, ids)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        table = self.teacher_user_emb if side == "user" else self.teacher_item_emb
        return rows, table.index_select(0, ids).to(rows.dtype)


class HTDOptions(SharedOptions, total=False):
    """The keywords of :class:`HTDLoss`; see its docstring."""

    beta: float
    alpha: float
    groups: int
    hidden: Optional[int]
    temperature_epochs: int
    weight_decay: float


@LOSSES.register("HTD")
class HTDLoss(ExpertLoss):
    """Hierarchical Topology Distillation: cosines within groups and to the groups' middles.

    Groups are learnt: per side a gate softmax(V t + c) on the teacher's rows has a choice per
    group, and x belongs to the likeliest one, c(x), without noise and gradient. Users and items
    never share a group. With E the distinct users and items of the batch and the mean of each sum
    over its pairs taken,

        L_entity = mean (cos(s_a, s_b) - cos(t_a, t_b))²
                   over a ≠ b ∈ E with c(a) = c(b) and cos(t_a, t_b) > 0,
        L_group  = mean (cos(P^S_g, s_x) - cos(P^T_g, t_x))² over groups g in the batch and x ∈ E,
        L_GA     = D(users) + D(items), D as in :class:`~recbole_freqd.losses.DELoss`, which is
                   what the gates learn by, a group an expert,
        L        = alpha (L_entity + L_group) + (1 - alpha) L_GA.

    P_g is the mean row of the members of group g in the batch, the teacher's groups for both
    models. That is the paper's Group(P, e) (``second`` in the public code). Groups of one side are
    compared with entities of the other too, unless users and items differ in width.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer. alpha: [0, 1], see above. groups: per side. hidden: of
        each group's expert, null: ⌊(d_S + d_T) / 2⌋. temperature_epochs: as for DE.
        weight_decay: of experts and gates.

    Weight: the public code has sums for all of it. Its lambda and alpha are here those beta and
    alpha for which beta·alpha = lambda·alpha'·N / B and beta·(1 - alpha) = lambda·(1 - alpha')·n /
    B, alpha' its alpha, n the entities of a side of the batch and N the pairs, of which an entity
    has some 50 in each of the two terms with 30 groups, so that N / n is about 100. So its
    alpha' = .5 is an alpha of about .99 (the default here), and lambda = .001 with B = 1024 a beta
    of about .07; later public configs have lambda .5 and alpha' .9.

    Source: Kang, Hwang, Kweon & Yu, "Topology Distillation for Recommender System", KDD 2021.
    Deviations from the public code: means for sums; the student's prototypes have a gradient, as
        the formula has it (there they are constants: its variant ``first``, Group(P, P), has no
        gradient at all and is not offered); prototypes go by group, not by place among those
        present; zero rows give no NaN; no n x n array but a block per group; no weight decay of
        experts and gates by default (there, the student's). The restriction to positive cosines of
        the teacher is the public code's.

    Raises:
        ConfigError: Features of the teacher have one dimension.

    Example, of a config::

        trainer: HTD
        teacher: {checkpoint: saved/BPR-teacher.pth}
        htd_beta: 1.0
        htd_groups: 30
    """

    method = "HTD"
    prefix = "htd"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[HTDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        _refuse_one_dimension(self)
        self.make_mixtures(student_dims, self.options["groups"], self.options["hidden"])

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student, alpha = as_rows(student_features), self.options["alpha"]
        ids = torch.unique(user_ids), _distinct_items(positive_item_ids, negative_item_ids)
        with single_precision(user_ids.device):
            rows = [self.rows(side, student, some) for side, some in zip(SIDES, ids)]
            groups = [self._groups(side, teacher) for side, (_, teacher) in zip(SIDES, rows)]
            topology = self._topology(*((*pair, own) for pair, own in zip(rows, groups)))
            errors = [mean_or_zero(self.errors(side, *pair)) for side, pair in zip(SIDES, rows)]
            return alpha * topology + (1.0 - alpha) * sum(errors)

    def _groups(self, side: str, teacher: torch.Tensor) -> torch.Tensor:
        """(b,), the groups of teacher rows (b, d_T); item groups are numbered after user groups."""
        with torch.no_grad():
            own = self.mixture(side).gate(teacher).argmax(dim=1)
        return own + SIDES.index(side) * self.options["groups"]

    def _topology(
        self, users: tuple[torch.Tensor, ...], items: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """L_entity + L_group, of student rows, teacher rows and groups of both sides."""
        parts = ([group_errors(*side) for side in (users, items)],
                 [prototype_errors(*rows) for rows in _joint_rows(users, items)])  # fmt: skip
        means = []
        for part in parts:
            totals, counts = zip(*part)
            means.append(sum(totals) / torch.as_tensor(sum(counts)).clamp(min=1))
        return means[0] + means[1]
