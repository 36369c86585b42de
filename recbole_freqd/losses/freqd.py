"""FreqD, and FD, which is FreqD with H = I."""

import logging
from time import perf_counter
from typing import Any, Optional, Union, cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_freqd.errors import ConfigError
from recbole_freqd.filters import PolynomialFilter
from recbole_freqd.graph import EntityGraph, cooccurrence_graph
from recbole_freqd.losses.base import LOSSES, DistillationLoss
from recbole_freqd.losses.distances import mean_at, row_distance
from recbole_freqd.projectors import LinearProjector, MLPProjector, make_projector
from recbole_freqd.rows import FeatureRows, Features, as_rows

logger = logging.getLogger(__name__)


@LOSSES.register("FreqD")
class FreqDLoss(DistillationLoss):
    """Feature distillation whose weight on graph frequency λ is h(λ)².

    With d̄(X) the mean over the distinct entities x of X of the distance between (H P(S))_x and
    (H T)_x, where S and T are student and teacher features, P the projector of the side and
    H = h(L) the filter of the side's co-occurrence graph:

        L = d̄(users) + ½ [d̄(positive items) + d̄(negative items)].

    For squared distance, all rows and no dropout this is Σ_k h(λ_k)² ‖u_kᵀ (P(S) - T)‖² divided by
    the number of rows, per side (Theorem 1 with weights). Cosine distance, dropout and batches are
    heuristics built on it.

    A batch costs the projection of the rows B and their kept neighbours, never of all N entities.

    Args and errors are those of :class:`DistillationLoss`; the options:
        alpha: [0, 1], strength of the filter. beta: weight, applied by the trainer.
        k: neighbours per entity. keep_prob: (0, 1], edge dropout. filter: ``"linear"``,
        ``"quadratic"`` or coefficients c_j (then without ``alpha``). distance: ``"cosine"`` or
        ``"squared"``. projector: ``"mlp"`` or ``"linear"``. experts, hidden, dropout: of the mlp.
        weight_decay: of the projectors, applied by the trainer.

    Source: Zhu & Zhang, "Exploring Feature-based Knowledge Distillation for Recommender System:
        A Frequency Perspective", KDD 2025, arXiv 2411.10676.
    Deviations from the authors' public code: means over entities instead of sums; one edge mask per
        side and step; no edges between entities that share nothing; the number of experts and
        their hidden width are separate options; final instead of layer-0 embeddings.

    Example:
        >>> import numpy as np
        >>> R = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
        >>> teacher = torch.ones(3, 6), torch.ones(3, 6)
        >>> loss = FreqDLoss(R, (2, 2), teacher, alpha=0.5, k=2)
        >>> student = torch.ones(3, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
        >>> ids = torch.tensor([0, 1])
        >>> loss(student, user_ids=ids, positive_item_ids=ids, negative_item_ids=ids + 1).shape
        torch.Size([])
    """

    method = "FreqD"
    prefix = "freqd"

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        if "alpha" in options and not isinstance(options.get("filter", "linear"), str):
            raise ConfigError(
                f"{cls.prefix}_filter: got coefficients {options['filter']!r} together with "
                f"{cls.prefix}_alpha={options['alpha']!r}; allowed: one of the two, since "
                "coefficients say all of h. Remove one from the config."
            )
        idle = [key for key in ("experts", "hidden", "dropout") if key in options]
        if options.get("projector") == "linear" and idle:
            names = ", ".join(f"{cls.prefix}_{key}" for key in idle)
            logger.warning("%s: no effect with %s_projector: linear.", names, cls.prefix)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        options = self.options
        self.filter = self._make_filter()
        self.graphs, self.projectors = nn.ModuleDict(), nn.ModuleDict()
        teachers = self.teacher_user_emb, self.teacher_item_emb
        for side, width, teacher_emb in zip(("user", "item"), student_dims, teachers):
            self.graphs[side] = self._make_graph(user_items, side, teacher_emb.dtype)
            self.projectors[side] = make_projector(
                options["projector"],
                width,
                teacher_emb.shape[1],
                self.stream,
                experts=options["experts"],
                hidden=options["hidden"],
                dropout=options["dropout"],
            ).to(teacher_emb.dtype)
        # The projectors start the same on every device, since they are drawn on the CPU.
        self.to(self.teacher_user_emb.device)

    def _make_filter(self) -> PolynomialFilter:
        return PolynomialFilter.named(self.options["filter"], self.options["alpha"])

    def _make_graph(self, user_items: sp.csr_array, side: str, dtype: torch.dtype) -> EntityGraph:
        if self.filter.degree == 0:
            n = user_items.shape[0 if side == "user" else 1]
            return EntityGraph(sp.csr_array((n, n)), dtype)
        start = perf_counter()
        adjacency = cooccurrence_graph(user_items, side=side, k=self.options["k"])
        logger.info(
            "%s graph: %d entities, %d edges, %d entities without a neighbour, %.1f s",
            side,
            adjacency.shape[0],
            adjacency.nnz // 2,
            int((np.diff(adjacency.indptr) == 0).sum()),
            perf_counter() - start,
        )
        return EntityGraph(adjacency, dtype)

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student, users = as_rows(student_features), torch.unique(user_ids)
        user_term = mean_at(self.distances("user", student, users), users, users)
        if negative_item_ids is None:
            items = torch.unique(positive_item_ids)
            distances = self.distances("item", student, items)
            return user_term + mean_at(distances, items, items)
        items = torch.unique(torch.cat([positive_item_ids, negative_item_ids]))
        distances = self.distances("item", student, items)
        positives = mean_at(distances, items, positive_item_ids)
        negatives = mean_at(distances, items, negative_item_ids)
        return user_term + 0.5 * (positives + negatives)

    def distances(self, side: str, student: FeatureRows, ids: torch.Tensor) -> torch.Tensor:
        """Distance between filtered student and filtered teacher rows.

        Args:
            side: ``"user"`` or ``"item"``.
            student: Its features; only the rows needed are read.
            ids: (b,) int64, sorted and distinct.

        Returns:
            (b,), one distance per id.
        """
        teacher_emb = self.teacher_user_emb if side == "user" else self.teacher_item_emb
        keep_prob = self.options.get("keep_prob", 1.0) if self.training else 1.0
        graph = cast(EntityGraph, self.graphs[side])
        hood = graph.neighbourhood(ids, self.filter.degree, keep_prob, self.stream)

        def filtered_rows(values: torch.Tensor) -> torch.Tensor:
            return self.filter.apply(values, hood.adjacency).index_select(0, hood.rows)

        projector = cast(Union[LinearProjector, MLPProjector], self.projectors[side])
        student_rows = projector.then_filter(student.of(side, hood.nodes), filtered_rows)
        teacher_rows = filtered_rows(teacher_emb.index_select(0, hood.nodes))
        return row_distance(student_rows, teacher_rows, self.options["distance"])


@LOSSES.register("FD")
class FDLoss(FreqDLoss):
    """Plain feature distillation: :class:`FreqDLoss` with H = I, so without a graph.

    The "regular feature distillation" of the paper: every knowledge weighs the same (Theorem 1).
    Options: those of FreqD but alpha, k, keep_prob and filter.

    Source: Zhu & Zhang, KDD 2025 (arXiv 2411.10676), §3; the idea is that of FitNets (ICLR 2015).
    """

    method = "FD"
    prefix = "fd"

    def _make_filter(self) -> PolynomialFilter:
        return PolynomialFilter([1.0])
