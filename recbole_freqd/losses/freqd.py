"""FreqD: distils features, weighted by graph frequency."""

import logging
from time import perf_counter
from typing import Any, Callable, Literal, Optional, Union, cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from typing_extensions import Unpack

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rng import derived_seed
from recbole_freqd.core.rows import FeatureRows, Features, as_rows, single_precision
from recbole_freqd.filters import PolynomialFilter, graph_filter
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.cooccurrence import SIDES, cooccurrence_graph
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.graph.watch import BandWatch
from recbole_freqd.losses.base import LossData
from recbole_freqd.losses.distances import (
    mean_over_batch,
    projected_distance,
    refuse_one_dimension,
    row_distance,
)
from recbole_freqd.losses.draws import some_of
from recbole_freqd.losses.filtered import FilteredTeacher
from recbole_freqd.losses.preference import PreferenceLoss, ProjectedOptions
from recbole_freqd.losses.projectors import LinearProjector, MLPProjector, make_projector
from recbole_freqd.losses.registration import LOSSES

logger = logging.getLogger(__name__)


class FDOptions(ProjectedOptions, total=False):
    """The keywords of :class:`FDLoss`; see its docstring."""

    step_rows: Optional[int]


class FreqDOptions(FDOptions, total=False):
    """The keywords of :class:`FreqDLoss`; see its docstring."""

    alpha: float
    k: int
    order: Literal["project_first", "filter_first"]
    graph: Literal["counts", "cosine"]
    graph_shrinkage: float
    max_pairs: int
    keep_prob: float
    mask: Literal["epoch", "step"]
    max_degree: Optional[int]
    filter: Union[Literal["linear", "quadratic"], list[float]]
    log_bands: int


@LOSSES.register("FreqD")
class FreqDLoss(PreferenceLoss):
    """Feature distillation whose weight on graph frequency λ is h(λ)².

    With d̄(X) the mean over the distinct entities x of X of the distance between (H P(S))_x and
    (H T)_x, where S and T are student and teacher features, P the projector of the side and
    H = h(L) the filter of the graph of the side's entities:

        L = d̄(users) + ½ [d̄(positive items) + d̄(negative items)].

    For squared distance, all rows and no dropout this is Σ_k h(λ_k)² ‖u_kᵀ (P(S) - T)‖² divided by
    the number of rows, per side (Theorem 1 with weights). Cosine distance, dropout and batches are
    heuristics built on it.

    A batch costs the rows B and their kept neighbours. With the linear projector all but one
    product with the teacher's rows is in the student's width. ``k`` bounds the neighbours that an
    entity chooses, but not how many entities choose it. So a popular entity's row has thousands of
    entries. On data with heavy tails a batch reaches most of the catalogue, unless ``max_degree``
    bounds the rows. Every epoch draws a new edge mask (:meth:`start_epoch`) and makes H T once for
    it. With ``mask="step"`` every batch does so.

    Args and errors are those of :class:`DistillationLoss`; the options:
        alpha: [0, 1], strength of the filter. beta: weight, applied by the trainer.
        k: neighbours per entity. graph: ``"counts"``, those with the most interactions in common
        (:func:`recbole_freqd.graph.cooccurrence_graph`), or ``"cosine"``, those of the highest
        cosine, shrunk by ``graph_shrinkage`` (:func:`recbole_freqd.graph.cosine_graph`; ours).
        max_pairs: budget of co-occurrences. keep_prob: (0, 1], edge dropout. mask:
        ``"epoch"`` or ``"step"``, how often the mask is drawn. max_degree: edges that a mask per
        epoch leaves to an entity at most (:meth:`EntityGraph.dropped`), None for all.
        filter: ``"linear"``, ``"quadratic"`` or coefficients c_j (then without ``alpha``).
        distance: ``"cosine"`` or ``"squared"``. projector: ``"mlp"`` or ``"linear"``. experts,
        hidden, dropout, order: of the mlp; with the order ``"filter_first"`` the student's rows are
        P(H S), so the mlp sees the batch only (the authors' first version). weight_decay: of the
        projectors, applied by the trainer. preference_*: see :class:`PreferenceLoss`.
        step_rows: a step computes at most this many distinct users, positive items and negative
        items each, drawn anew in every step; null for all of them.
        log_bands: how many bands' losses the trainer logs, 0 for none.

    Source: Zhu & Zhang, "Exploring Feature-based Knowledge Distillation for Recommender System:
        A Frequency Perspective", KDD 2025, arXiv 2411.10676.
    Deviations from the authors' public code: means over entities instead of sums; one edge mask per
        side and epoch (or step) instead of one per call; no edges between entities that share
        nothing; the number of experts and their hidden width are separate options; final instead of
        layer-0 embeddings; no weight decay of the projectors by default (there, the student's).

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

    def __init__(self, *data: Unpack[LossData], **options: Unpack[FreqDOptions]) -> None:
        super().__init__(*data, **options)

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        super().check_options(options)
        if "alpha" in options and not isinstance(options.get("filter", "linear"), str):
            raise ConfigError(
                f"{cls.prefix}_filter: got coefficients {options['filter']!r} together with "
                f"{cls.prefix}_alpha={options['alpha']!r}; allowed: one of the two, since "
                "coefficients define h completely. Remove one from the config."
            )
        kind = options.get("filter")
        if isinstance(kind, (list, tuple)) and kind and all(value == 0 for value in kind):
            raise ConfigError(
                f"{cls.prefix}_filter: got {kind!r}; allowed: at least one coefficient that is not "
                "0. H = 0 makes everything alike and teaches nothing."
            )
        if options.get("mask") == "step" and options.get("max_degree") is not None:
            raise ConfigError(
                f"{cls.prefix}_max_degree: got {options['max_degree']!r} together with "
                f"{cls.prefix}_mask: step; allowed: {cls.prefix}_mask: epoch with it, or null. "
                "The bound is drawn once per epoch."
            )
        idle = [key for key in ("experts", "hidden", "dropout", "order") if key in options]
        if options.get("projector") == "linear" and idle:
            names = ", ".join(f"{cls.prefix}_{key}" for key in idle)
            logger.warning("%s: no effect with %s_projector: linear.", names, cls.prefix)
        if "graph_shrinkage" in options and options.get("graph", "counts") == "counts":
            logger.warning(
                "%s_graph_shrinkage: no effect without %s_graph: cosine.", cls.prefix, cls.prefix
            )

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        options = self.options
        self.filter = self._make_filter()
        if self._masks_per_step() and self.filter.degree > 1:
            raise ConfigError(
                f"{self.prefix}_mask: got 'step' with a filter of degree {self.filter.degree}; "
                "allowed: epoch, since powers of a masked graph are made once per epoch."
            )
        self.graphs, self.projectors = nn.ModuleDict(), nn.ModuleDict()
        self._epoch = 0
        self._filtered: dict[str, FilteredTeacher] = {}
        self._watches: dict[str, BandWatch] = {}
        teachers = self.teacher_user_emb, self.teacher_item_emb
        for side, width, teacher_emb in zip(SIDES, student_dims, teachers):
            if options["distance"] == "cosine":
                key = f"{self.prefix}_distance"
                way_out = f"{key}: squared; or "
                refuse_one_dimension(teacher_emb.shape[1], side, f"{key}: got cosine", way_out)
            dtype = torch.promote_types(teacher_emb.dtype, torch.float32)
            self.graphs[side] = self._make_graph(user_items, side, dtype)
            self.projectors[side] = make_projector(
                options["projector"],
                width,
                teacher_emb.shape[1],
                self.stream,
                experts=options["experts"],
                hidden=options["hidden"],
                dropout=options["dropout"],
            ).to(dtype)
        # The CPU draws the projectors, so that they start the same on every device.
        self.to(self.teacher_user_emb.device)

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        super().start_epoch(epoch, student)
        self._epoch = epoch

    def _make_filter(self) -> PolynomialFilter:
        return PolynomialFilter.named(self.options["filter"], self.options["alpha"])

    def _make_graph(self, user_items: sp.csr_array, side: str, dtype: torch.dtype) -> EntityGraph:
        if self.filter.degree == 0 and not self.options.get("log_bands"):
            n = user_items.shape[SIDES.index(side)]
            return EntityGraph(sp.csr_array((n, n)), dtype)
        n, k = user_items.shape[SIDES.index(side)], self.options["k"]
        if k >= n:
            logger.warning(
                "%s_k: got %d, but the %s graph has %d entities: it acts as %d.",
                self.prefix,
                k,
                side,
                n,
                max(n - 1, 1),
            )
        start = perf_counter()
        k = min(k, max(n - 1, 1))
        adjacency = self._make_graph_once(lambda: self._edges(user_items, side, k))
        logger.info(
            "%s graph by %s: %d entities, %d edges, %d entities without a neighbour, %.1f s",
            side,
            self.options["graph"],
            adjacency.shape[0],
            adjacency.nnz // 2,
            int((np.diff(adjacency.indptr) == 0).sum()),
            perf_counter() - start,
        )
        return EntityGraph(adjacency, dtype)

    def _edges(self, user_items: sp.csr_array, side: str, k: int) -> sp.csr_array:
        most = self.options["max_pairs"]
        if self.options["graph"] == "counts":
            return cooccurrence_graph(user_items, side=side, k=k, max_pairs=most)
        shrinkage = self.options["graph_shrinkage"]
        return cosine_graph(user_items, side=side, k=k, shrinkage=shrinkage, max_pairs=most)

    def _make_graph_once(self, make: Callable[[], sp.csr_array]) -> sp.csr_array:
        """Makes a square matrix once for all processes; it travels as tensors."""

        def arrays() -> list[torch.Tensor]:
            made = make()
            return [torch.from_numpy(part) for part in (made.data, made.indices, made.indptr)]

        data, indices, indptr = (part.numpy() for part in self.make_once(arrays))
        return sp.csr_array((data, indices, indptr), shape=(len(indptr) - 1, len(indptr) - 1))

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student = as_rows(student_features)
        with single_precision(user_ids.device):
            value = mean_over_batch(
                lambda side, ids: self.distances(side, student, ids),
                user_ids,
                positive_item_ids,
                negative_item_ids,
                self._some,
            )
        return self.with_preference(value, student, user_ids)

    def _some(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[some_of(ids, self.options["step_rows"], self.stream)]

    def distances(self, side: str, student: FeatureRows, ids: torch.Tensor) -> torch.Tensor:
        """Distance between filtered student and filtered teacher rows.

        Args:
            side: ``"user"`` or ``"item"``.
            student: Its features; only the rows needed are read.
            ids: (b,) int64, repeats allowed.

        Returns:
            (b,), one distance per id.
        """
        filtered = self._filter_teacher(side)
        if filtered.teacher_emb is None:  # one mask per entity, however often it occurs
            distinct, place = torch.unique(ids, return_inverse=True)
            return self._distances(filtered, side, student, distinct)[place]
        return self._distances(filtered, side, student, ids)

    def _distances(
        self, filtered: FilteredTeacher, side: str, student: FeatureRows, ids: torch.Tensor
    ) -> torch.Tensor:
        """:meth:`distances` for distinct ids, or with a mask that is drawn already."""
        sums, totals = filtered.filter.rows(ids), filtered.filter.totals[ids]
        if filtered.teacher_emb is None or filtered.teacher_norm is None:
            sums = sums.with_dropout(ids, self.options["keep_prob"], self.stream)
            totals, teacher = sums.totals(), sums.of(self._teacher(side))
            norm = torch.linalg.vector_norm(teacher, dim=1, dtype=sums.weights.dtype)
        else:
            teacher, norm = filtered.teacher_emb.index_select(0, ids), filtered.teacher_norm[ids]
        projector = cast(Union[LinearProjector, MLPProjector], self.projectors[side])
        distance = self.options["distance"]
        if isinstance(projector, MLPProjector):
            kind = projector.weight_in.dtype  # as precise as the teacher
            if self.options.get("order") == "filter_first":
                nodes, inside = student.summed(side, sums).to(kind), None
            else:  # all but the last layer has to see the neighbours
                ids, inside = sums.compacted()
                nodes = student.of(side, ids).to(kind)
            if projector.is_narrow():
                narrow, last = projector.before_last(nodes, inside)
                return projected_distance(narrow, last, teacher, norm, distance)
            wide = projector(nodes) if inside is None else projector.of_filtered(nodes, inside)
            return row_distance(wide, teacher, distance)
        rows = student.summed(side, sums).to(projector.weight.dtype)
        if rows.shape[1] < teacher.shape[1]:
            rows = torch.cat([rows, totals[:, None]], dim=1)
            return projected_distance(rows, projector.stacked(), teacher, norm, distance)
        return row_distance(projector.of_filtered(rows, totals), teacher, distance)

    def relative_band_losses(self, student: Features) -> dict[str, np.ndarray]:
        """By side, E_b(P(S) - T) / E_b(T) for ``log_bands`` bands; empty without bands.

        It reads the whole graph and all entities, without dropout, and ignores the filter: it shows
        what the student learnt, not what the loss asks for. This passes over everything, so do not
        call it in every epoch.

        Args:
            student: All its features, (n_users, d) and (n_items, d').
        """
        count, found = self.options.get("log_bands", 0), {}
        for side, features in zip(SIDES, student) if count else ():
            if side not in self._watches:
                graph = cast(EntityGraph, self.graphs[side])
                distance = self.options["distance"]
                self._watches[side] = BandWatch(graph, self._teacher(side), distance, count)
            found[side] = self._watches[side].relative(self.projectors[side], features)
        return found

    def _teacher(self, side: str) -> torch.Tensor:
        return self.teacher_user_emb if side == "user" else self.teacher_item_emb

    def _masks_per_step(self) -> bool:
        return self.options.get("mask") == "step" and self.options["keep_prob"] < 1.0

    def _filter_teacher(self, side: str) -> FilteredTeacher:
        """The current filter, and the teacher through it; made anew when mask or mode change."""
        most = self.options.get("max_degree") if self.training else None
        dropout = self.training and self.options.get("keep_prob", 1.0) < 1.0
        masked, per_step = dropout or most is not None, dropout and self._masks_per_step()
        key = "step" if per_step else self._epoch if masked else "whole"
        graph, before = cast(EntityGraph, self.graphs[side]), self._filtered.get(side)
        if before is not None and before.filter.weights.device != graph.weights.device:
            before = None  # the loss was moved
        if before is not None and before.key == key:
            return before
        keep_prob = self.options["keep_prob"] if dropout and not per_step else 1.0
        # Each side and epoch has its own mask, whatever was drawn before.
        seed = derived_seed(self.stream.seed, self._epoch, SIDES.index(side))
        kept = graph.dropped(keep_prob, seed, most)
        now = FilteredTeacher(key, graph_filter(kept, self.filter.coefficients))
        if not per_step:
            now = now.with_teacher(self._teacher(side), before.memory if before else None)
        self._filtered[side] = now
        return now
