"""Bands of graph frequencies: sharp, and smoothed into polynomials that sum to 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_freqd.core.errors import ConfigError

MOST_BANDS = 2000  # each costs a pass over all features
_AT_AN_EDGE = 1e-9  # eigenvalues as near to an edge as this are on it


@dataclass(frozen=True)
class Bands:
    """Intervals [e_0, e_1), [e_1, e_2), ..., the last one closed, from e_0 = 0 to e_B = 2.

    Attributes:
        edges: (B + 1,), ascending.

    Raises:
        ConfigError: The edges do not ascend from 0 to 2.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        steps = np.diff(self.edges)
        if len(steps) < 1 or self.edges[0] != 0 or self.edges[-1] != 2 or not (steps > 0).all():
            raise ConfigError(f"bands: got {self.edges}; allowed: edges that ascend from 0 to 2.")

    @classmethod
    def equal(cls, count: int) -> "Bands":
        """``count`` bands of one width.

        Example:
            >>> Bands.equal(4).edges
            (0.0, 0.5, 1.0, 1.5, 2.0)
        """
        if int(count) != count or not 1 <= count <= MOST_BANDS:
            raise ConfigError(
                f"bands: got {count!r}; allowed: a whole number from 1 to {MOST_BANDS}."
            )
        return cls(tuple(np.linspace(0.0, 2.0, int(count) + 1).tolist()))

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def centres(self) -> np.ndarray:
        """(B,), the middle of each band."""
        return (np.array(self.edges[1:]) + self.edges[:-1]) / 2

    def sharp(self, lam: Any) -> np.ndarray:
        """g_b(λ) as 0 or 1: (B, n) for λ (n,).

        A λ within 1e-9 of an edge is on it, so that rounding decides nothing: stars and twins make
        λ = 1 a frequent eigenvalue, and that is an edge of any even number of equal bands.
        """
        place = np.searchsorted(np.array(self.edges[1:-1]) - _AT_AN_EDGE, np.asarray(lam), "right")
        return (place == np.arange(len(self))[:, None]).astype(np.float64)

    def smooth(self, lam: Any, degree: int) -> np.ndarray:
        """g_b(λ) as polynomials of ``degree``: (B, n) for λ (n,), each in [0, 1], summing to 1."""
        angles = np.arccos(np.clip(np.asarray(lam, dtype=np.float64) - 1.0, -1.0, 1.0))
        return self.coefficients(degree) @ np.cos(np.arange(degree + 1)[:, None] * angles)

    def coefficients(self, degree: int) -> np.ndarray:
        """(B, degree + 1), g_b(λ) = Σ_m c_bm T_m(λ - 1) with Chebyshev's polynomials T_m.

        The steps 1[λ < e] at the inner edges, expanded and damped by Jackson's factors: smoothed
        by a kernel that is nowhere negative, about π / degree wide in arccos(λ - 1), they neither
        ring nor leave [0, 1]. A band is the difference of two neighbouring steps, so the sum of
        all is the constant 1, whatever the degree.
        """
        order, size = np.arange(1, degree + 1), degree + 2
        damping = (size - order) * np.cos(np.pi * order / size) + np.sin(
            np.pi * order / size
        ) / np.tan(np.pi / size)
        cuts = np.arccos(np.array(self.edges[1:-1]) - 1.0)[:, None]
        steps = np.zeros((len(self) + 1, degree + 1))
        steps[1:-1, :1] = 1.0 - cuts / np.pi
        steps[1:-1, 1:] = -2.0 * np.sin(order * cuts) / (np.pi * order) * damping / size
        steps[-1, 0] = 1.0
        return np.diff(steps, axis=0)
