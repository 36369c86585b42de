"""Polynomial graph filters h(λ) = Σ_j c_j λ^j: their response and their application h(L) x."""

from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.errors import ConfigError
from recbole_freqd.graph import Adjacency, EntityGraph


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
