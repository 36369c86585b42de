"""Polynomial graph filters h(λ) = Σ_j c_j λ^j: response, application h(L) x, sparse matrix h(L)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rows import WeightedSums, empty_rows, is_mapped
from recbole_freqd.graph.adjacency import Adjacency, EntityGraph

_BLOCK = 65_536  # rows of H x made at once


class PolynomialFilter:
    """h(λ) = Σ_j c_j λ^j of the Laplacian L = J - Â.

    Args:
        coefficients: c_0, c_1, ...; trailing zeros are dropped, so that ``degree`` is the number
            of hops the filter reaches.

    Raises:
        ConfigError: No coefficient, or one that is not a finite number.

    Source: Zhu & Zhang, KDD 2025 (arXiv 2411.10676): re-weighting needs a polynomial only, no
        eigendecomposition.

    Example:
        >>> PolynomialFilter.linear(0.5).response(np.array([0.0, 1.0, 2.0]))
        array([1. , 0.5, 0. ])
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        values = [float(value) for value in coefficients]
        if not values or not np.isfinite(values).all():
            raise ConfigError(
                f"filter coefficients: got {list(coefficients)!r}; allowed: one or more finite "
                "numbers c_0, c_1, ... of h(lambda) = sum_j c_j lambda^j."
            )
        while len(values) > 1 and values[-1] == 0.0:
            values.pop()
        self.coefficients = tuple(values)

    @classmethod
    def linear(cls, alpha: float) -> "PolynomialFilter":
        """h(λ) = 1 - αλ, the filter of the paper; α = 0 is the identity."""
        return cls([1.0, -alpha])

    @classmethod
    def quadratic(cls, alpha: float) -> "PolynomialFilter":
        """h(λ) = (1 - αλ)², ours: the loss weight becomes (1 - αλ)⁴."""
        return cls([1.0, -2.0 * alpha, alpha * alpha])

    @classmethod
    def named(cls, kind: Union[str, Sequence[float]], alpha: float) -> "PolynomialFilter":
        """The filter of a config: ``"linear"``, ``"quadratic"``, or a list of coefficients."""
        if not isinstance(kind, str):
            return cls(kind)
        if kind not in ("linear", "quadratic"):
            raise ConfigError(f"filter: got {kind!r}; allowed: linear, quadratic, coefficients.")
        return getattr(cls, kind)(alpha)

    @property
    def degree(self) -> int:
        """The highest power of L, which is the number of hops."""
        return len(self.coefficients) - 1

    def response(self, lam: Any) -> Any:
        """h(λ) for a number, an array or a tensor of λ in [0, 2]; same kind and shape back."""
        value = lam * 0.0 + self.coefficients[-1]
        for coefficient in reversed(self.coefficients[:-1]):
            value = value * lam + coefficient
        return value

    def apply(self, x: Any, adjacency: Any) -> Any:
        """H x by Horner's rule: ``degree`` products with Â, nothing of size n × n.

        Args:
            x: (n, d) tensor or array.
            adjacency: Â, (n, n): a SciPy sparse array, a torch sparse tensor, an
                :class:`EntityGraph` or an :class:`Adjacency`.

        Returns:
            (n, d), of the kind and dtype of ``x`` (whole numbers become float64).
        """
        values = x if isinstance(x, torch.Tensor) else torch.as_tensor(x)
        if not values.is_floating_point():
            values = values.double()
        graph = _as_adjacency(adjacency, values)
        result = values * self.coefficients[-1]
        for coefficient in reversed(self.coefficients[:-1]):
            result = values * coefficient + graph.laplacian(result)
        return result if isinstance(x, torch.Tensor) else result.numpy()

    def __repr__(self) -> str:
        return f"PolynomialFilter({list(self.coefficients)})"


def _as_adjacency(adjacency: Any, like: torch.Tensor) -> Adjacency:
    """Any accepted form of Â as an :class:`Adjacency` on the device of ``like``."""
    if isinstance(adjacency, Adjacency):
        return adjacency
    if isinstance(adjacency, torch.Tensor):
        entries = adjacency.to_sparse_coo().coalesce()
        row, col = entries.indices()
        adjacency = sp.coo_array(
            (entries.values().detach().cpu().numpy(), (row.cpu().numpy(), col.cpu().numpy())),
            shape=tuple(entries.shape),
        )
    if not isinstance(adjacency, EntityGraph):
        adjacency = EntityGraph(sp.csr_array(adjacency), dtype=like.dtype).to(like.device)
    if len(adjacency) != len(like):
        raise ConfigError(f"x has {len(like)} rows, the graph {len(adjacency)} vertices.")
    return adjacency.adjacency()


@dataclass(frozen=True)
class GraphFilter:
    """H = h(L) of a graph, or of what edge dropout leaves of it, as a sparse matrix in CSR form.

    Attributes:
        indptr: (n + 1,) int64. indices: (n_entries,) int64. weights: (n_entries,) float.
        totals: (n,) float, the row sums H 1.
        is_identity: Whether H = I.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor
    totals: torch.Tensor
    is_identity: bool = False

    @classmethod
    def of(
        cls, indptr: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
    ) -> "GraphFilter":
        """From the arrays of a CSR matrix; the row sums are taken here."""
        n = len(indptr) - 1
        rows = torch.repeat_interleave(torch.arange(n, device=indptr.device), indptr.diff())
        return cls(indptr, indices, weights, weights.new_zeros(n).index_add_(0, rows, weights))

    @classmethod
    def identity(cls, n: int, like: torch.Tensor) -> "GraphFilter":
        """H = I for n entities, weights of the dtype and device of ``like``."""
        ones, every = like.new_ones(n), torch.arange(n + 1, device=like.device)
        return cls(every, every[:-1], ones, ones, is_identity=True)

    def rows(self, ids: torch.Tensor) -> WeightedSums:
        """The rows of H at ids (b,) int64, each as the weighted sum that it is."""
        start = self.indptr.index_select(0, ids)
        count = self.indptr.index_select(0, ids + 1) - start
        offsets = count.cumsum(0) - count
        owner = torch.repeat_interleave(count)  # 0 for each entry of the first row, then 1, ...
        entry = torch.arange(len(owner), device=ids.device)
        entry += (start - offsets).index_select(0, owner)
        columns, weights = (part.index_select(0, entry) for part in (self.indices, self.weights))
        return WeightedSums(owner, offsets, columns, weights)

    def apply(self, x: torch.Tensor, out: Optional[torch.Tensor] = None) -> torch.Tensor:
        """H x for x (n, d), block by block; without ``out`` and for H = I, ``x`` itself."""
        if self.is_identity and out is None:
            return x
        if out is None:
            out = empty_rows(len(x), x.shape[1], x.dtype, x.device, mapped=is_mapped(x))
        for ids in torch.arange(len(x), device=self.indptr.device).split(_BLOCK):
            out[ids[0] : ids[-1] + 1] = self.rows(ids).of(x)
        return out


def graph_filter(adjacency: Adjacency, coefficients: Sequence[float]) -> GraphFilter:
    """H = Σ_j c_j L^j with L = J - Â, as a sparse matrix.

    Args:
        adjacency: Â, whose entries are sorted by row.
        coefficients: c_0, c_1, ...; with m + 1 of them the rows of H reach m hops, and are as wide.

    Example:
        >>> graph = EntityGraph(sp.csr_array([[0.0, 1.0], [1.0, 0.0]]))
        >>> h = graph_filter(graph.adjacency(), [1.0, -0.5])
        >>> h.apply(torch.tensor([[1.0], [3.0]])).tolist()
        [[2.0], [2.0]]
    """
    n = len(adjacency.connected)
    if len(coefficients) == 1:
        return _scaled(GraphFilter.identity(n, adjacency.weight), coefficients[0])
    if len(coefficients) == 2:
        return _linear(adjacency, *coefficients)
    # Higher powers fill up: SciPy's sparse products, on the CPU.
    edges = (adjacency.row.cpu().numpy(), adjacency.col.cpu().numpy())
    links = sp.csr_array((adjacency.weight.cpu().numpy(), edges), shape=(n, n))
    laplacian = sp.diags_array(adjacency.connected.cpu().numpy().astype(links.dtype)) - links
    unit = sp.eye_array(n, dtype=links.dtype)
    matrix = coefficients[-1] * unit
    for coefficient in reversed(coefficients[:-1]):
        matrix = matrix @ laplacian + coefficient * unit
    csr = sp.csr_array(matrix)
    device = adjacency.weight.device
    return GraphFilter.of(
        torch.from_numpy(csr.indptr).to(device, torch.int64),
        torch.from_numpy(csr.indices).to(device, torch.int64),
        torch.from_numpy(csr.data).to(device, adjacency.weight.dtype),
    )


def _scaled(identity: GraphFilter, factor: float) -> GraphFilter:
    if factor == 1.0:
        return identity
    return GraphFilter.of(identity.indptr, identity.indices, identity.weights * factor)


def _linear(adjacency: Adjacency, constant: float, slope: float) -> GraphFilter:
    """c_0 + c_1 L: the diagonal before the edges of each row."""
    n, edges, device = len(adjacency.connected), len(adjacency.row), adjacency.row.device
    counts = torch.bincount(adjacency.row, minlength=n) + 1
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    # Edges are sorted by row, so before edge e lie e edges and the diagonals of its row and above.
    place = torch.arange(edges, device=device) + adjacency.row + 1
    indices = torch.empty(n + edges, dtype=torch.int64, device=device)
    weights = adjacency.weight.new_empty(n + edges)
    indices[indptr[:-1]] = torch.arange(n, device=device)
    weights[indptr[:-1]] = constant + slope * adjacency.connected.to(weights.dtype)
    indices[place] = adjacency.col
    weights[place] = -slope * adjacency.weight
    return GraphFilter.of(indptr, indices, weights)


def response_curve(
    kind: Union[str, Sequence[float]], alpha: float, points: int = 201
) -> dict[str, np.ndarray]:
    """λ from 0 to 2, h(λ) and the weight h(λ)² of a filter as a config names it.

    Example:
        >>> response_curve("linear", 0.5, points=3)["weight"].tolist()
        [1.0, 0.25, 0.0]
    """
    lam = np.linspace(0.0, 2.0, points)
    h = PolynomialFilter.named(kind, alpha).response(lam)
    return {"lambda": lam, "h": h, "weight": h**2}
