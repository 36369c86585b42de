"""FitNet and VkD: squared errors of features, on a sample of the whole catalogue."""

from typing import Literal, Optional, Union, cast

import scipy.sparse as sp
import torch
from torch import nn
from torch.nn.utils import parametrizations
from typing_extensions import Unpack

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows, Features, as_rows, single_precision
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.losses.base import DistillationLoss, LossData, SharedOptions
from recbole_freqd.losses.distances import (
    mean_or_zero,
    projected_distance,
    refuse_one_dimension,
)
from recbole_freqd.losses.draws import distinct
from recbole_freqd.losses.fd import FDLoss
from recbole_freqd.losses.preference import ProjectedOptions
from recbole_freqd.losses.projectors import uniform_parameter
from recbole_freqd.losses.registration import LOSSES


class CatalogueLoss(DistillationLoss):
    """d̄(users) + d̄(items) over as many users, and items, as the batch has rows, drawn anew.

    The draw is uniform, without replacement, among the entities that the teacher knows: ids from 1
    with a teacher row that is not zero. It takes all of them if they are fewer. The entities of the
    batch do not matter, in train mode or not.
    """

    def distances(self, side: str, student: FeatureRows, ids: torch.Tensor) -> torch.Tensor:
        """(b,), the distance of each of the ids (b,) of a side."""
        raise NotImplementedError

    def find_candidates(self) -> None:
        """Looks up which entities the teacher knows; call it in ``build``."""
        for side, teacher in zip(SIDES, (self.teacher_user_emb, self.teacher_item_emb)):
            largest = torch.linalg.vector_norm(teacher[1:], ord=torch.inf, dim=1)
            self.register_buffer(f"{side}_ids", 1 + largest.nonzero().flatten(), persistent=False)

    def candidates(self, side: str) -> torch.Tensor:
        """The ids (n,) to draw a side's samples from."""
        return cast(torch.Tensor, getattr(self, f"{side}_ids"))

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student, total = as_rows(student_features), torch.zeros((), device=user_ids.device)
        with single_precision(user_ids.device):
            for side in SIDES:
                ids = distinct(self.candidates(side), len(user_ids), self.stream)
                total = total + mean_or_zero(self.distances(side, student, ids))
        return total


@LOSSES.register("FitNet")
class FitNetLoss(CatalogueLoss, FDLoss):
    """Feature distillation on a sample of the catalogue instead of the batch.

    With U and I samples of users and items, each of the size of the batch (:class:`CatalogueLoss`):

        L = mean_{u ∈ U} ‖t_u - g_U(s_u)‖² + mean_{i ∈ I} ‖t_i - g_I(s_i)‖²,

    t (d_T) and s (d_S) the rows of teacher and student, g the projector of the side, the squares
    summed over dimensions.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer. distance: ``"squared"``, or ``"cosine"``, which is
        half of the public code's squared distance of rows of length 1 (``fit_norm``). projector,
        experts, hidden, dropout, weight_decay, preference_*: as for FD, so that the two differ only
        in the entities that they compare, and in the distance.

    Weight: the public code adds a sum over B entities per side to a base loss that is a sum over B
    rows; here both are means, so beta is its lambda as it stands (.05 on CiteULike) while the
    catalogue has at least B entities.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, in the form for
        recommenders that the public code of FreqD (KDD 2025) has as ``Fit``.
    Deviations from that code: means for sums; ids from their own stream, without work that grows
        with the catalogue; catalogues smaller than a batch are taken whole instead of an error; no
        draw of padding, or of entities that the teacher does not know; no weight decay of the
        projectors by default (there, the student's); by default 5 experts of hidden width d_T, as
        for FD, where CiteULike's official setting is 1 of 5 d_T.

    Example, of a config::

        trainer: FitNet
        teacher: {checkpoint: saved/BPR-teacher.pth}
        fitnet_beta: 0.05
        fitnet_projector: linear
    """

    method = "FitNet"
    prefix = "fitnet"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[ProjectedOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        FDLoss.build(self, user_items, student_dims)
        self.find_candidates()

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student = as_rows(student_features)
        value = CatalogueLoss.forward(self, student, user_ids, positive_item_ids, negative_item_ids)
        return self.with_preference(value, student, user_ids)

    def distances(self, side: str, student: FeatureRows, ids: torch.Tensor) -> torch.Tensor:
        return FDLoss.distances(self, side, student, ids)


class OrthogonalProjector(nn.Module):
    """s ↦ W s with orthonormal columns, WᵀW = I, which keeps the student's lengths and angles.

    Args:
        student_dim: Columns of W.
        teacher_dim: Rows of W, at least as many.
        stream: Draws the initial W.
        dtype: Of the parameter.
    """

    weight: torch.Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, stream: RandomStream, dtype: torch.dtype
    ) -> None:
        super().__init__()
        start = uniform_parameter(stream, (teacher_dim, student_dim), student_dim)
        self.weight = nn.Parameter(start.detach().to(dtype))
        # Without trivialization: that draws a teacher_dim x teacher_dim matrix, and globally.
        parametrizations.orthogonal(self, "weight", "householder", use_trivialization=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, student_dim) -> (n, teacher_dim)."""
        return x @ self.weight.T


class VkDOptions(SharedOptions, total=False):
    """The keywords of :class:`VkDLoss`; see its docstring."""

    beta: float
    center: bool
    distance: Literal["cosine", "squared"]


@LOSSES.register("VkD")
class VkDLoss(CatalogueLoss):
    """Feature distillation through an orthogonal projector, on a sample of the catalogue.

    With U and I samples of users and items, each of the size of the batch (:class:`CatalogueLoss`),
    W_U and W_I (d_T x d_S) with WᵀW = I and m the mean teacher row of the side:

        L = mean_{u ∈ U} ‖(t_u - m_U) - W_U s_u‖² + mean_{i ∈ I} ‖(t_i - m_I) - W_I s_i‖².

    Since W keeps lengths, the projector cannot learn anything in place of the student. W is a
    product of Householder reflections, made anew in every step: O(d_T d_S²).

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer. center: whether to subtract m, else m is 0. distance:
        ``"squared"``, or ``"cosine"``, half of the public code's squared distance of rows of
        length 1 (``vkd_norm``).

    Weight: as for FitNet beta is the public code's lambda as it stands (.0005 on CiteULike).

    Source: Miles, Elezi & Deng, "VkD: Improving Knowledge Distillation using Orthogonal
        Projections", CVPR 2024; for recommenders, the public code of FreqD (KDD 2025).
    Deviations from that code, beside those of FitNet: m is the mean over all entities that the
        teacher knows, not over the sample, and the teacher's rows are not changed in place; no
        weight decay of W: of its parameters it would move the signs that torch keeps on the
        diagonal, which it truncates to integers, and the first step would make W zero. The paper
        (on images) normalises features by task; centring is what is left of that.

    Raises:
        ConfigError: The student is wider than the teacher: no such W exists.

    Example, of a config::

        trainer: VkD
        teacher: {checkpoint: saved/BPR-teacher.pth}
        vkd_beta: 0.0005
    """

    method = "VkD"
    prefix = "vkd"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[VkDOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        self.find_candidates()
        self.projectors = nn.ModuleDict()
        teachers = self.teacher_user_emb, self.teacher_item_emb
        for side, width, teacher in zip(SIDES, student_dims, teachers):
            if width > teacher.shape[1]:
                raise ConfigError(
                    f"VkD: the student's {side} features have {width} dimensions, the teacher's "
                    f"{teacher.shape[1]}; allowed: a student no wider than its teacher, since an "
                    "orthogonal projector keeps all of it. Make the student smaller, or change the "
                    "trainer (FitNet has no such limit)."
                )
            if self.options["distance"] == "cosine":
                key, way_out = "vkd_distance: got cosine", "vkd_distance: squared; or "
                refuse_one_dimension(teacher.shape[1], side, key, way_out)
            dtype = torch.promote_types(teacher.dtype, torch.float32)
            self.projectors[side] = OrthogonalProjector(width, teacher.shape[1], self.stream, dtype)
            ids = self.candidates(side)
            mean = sum(teacher[part].sum(0, dtype=torch.float64) for part in ids.split(65536))
            mean = torch.as_tensor(mean, dtype=dtype) / max(1, len(ids))
            self.register_buffer(f"{side}_mean", mean, persistent=False)
        self.to(self.teacher_user_emb.device)

    def distances(self, side: str, student: FeatureRows, ids: torch.Tensor) -> torch.Tensor:
        projector = cast(OrthogonalProjector, self.projectors[side])
        table = self.teacher_user_emb if side == "user" else self.teacher_item_emb
        weight = projector.weight.T
        teacher = table.index_select(0, ids).to(weight.dtype)
        if self.options["center"]:
            teacher = teacher - cast(torch.Tensor, getattr(self, f"{side}_mean"))
        norm = torch.linalg.vector_norm(teacher, dim=1)
        rows = student.of(side, ids).to(weight.dtype)
        return projected_distance(rows, weight, teacher, norm, self.options["distance"])
