"""Frequency analysis: the share of features, or of a loss, in each band of frequencies.

Bands are intervals of λ in [0, 2], the eigenvalues of L = J - Â. The energy of features X (n, d) in
band b is E_b(X) = tr(Xᵀ g_b(L) X) with Σ_b g_b = 1, so that the bands sum to ‖X‖²_F. For the error
X = P(S) - T of a student that is the part of L_FD = ‖P(S) - T‖²_F (Theorem 1 of arXiv 2411.10676)
that knowledge of these frequencies has.

A vertex without neighbours has a zero row in L: it is an eigenvector of λ = 0, so all its energy is
in the lowest band, as FreqD's filter leaves it alone, too. How much that is can be asked for
(:meth:`GraphSpectrum.isolated_energy`). RecBole's padding row 0 is in nothing.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.bands import Bands

EXACT_LIMIT = 3_000  # vertices up to which all eigenvectors are computed: some ten seconds
_ROWS = 65_536  # read at once
_COLUMNS = 32  # filtered at once
_PROBES = 32  # random vectors that a number of eigenvalues is estimated with


class GraphSpectrum:
    """Splits the energy of features on one graph among bands.

    *Exact*, for small graphs: all eigenvectors, sharp bands. *Scalable*: no eigenvector; the bands
    are polynomials of L, smoothed at their edges, with traces summed from
    μ_m = tr(Xᵀ T_m(L - I) X). Since T_2m = 2 T_m² - 1, these need ``degree`` / 2 products with Â,
    for any number of bands, on 32 columns at a time: memory of two times n × 32 numbers beside the
    features.

    Args:
        adjacency: Â, (n, n) symmetric, as :func:`recbole_freqd.graph.cooccurrence_graph` makes it,
            or an :class:`EntityGraph`.
        bands: How many bands of one width, or :class:`Bands`.
        exact: True, False, or None: by size (up to :data:`EXACT_LIMIT` connected vertices).
        degree: Of the smooth bands; None: sharp bands where exact, else 16 for every band.
        padding: Whether row 0 is RecBole's padding, and is left out.

    Raises:
        ConfigError: Bands, degree, or a padding row that has neighbours.

    Attributes:
        exact, degree, bands: What was settled on.
        isolated: (m,) int64, the vertices without neighbours, but for the padding.

    Example:
        >>> pair = sp.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> GraphSpectrum(pair, 2, padding=False).energies(np.array([[1.0], [-1.0]]))
        array([0., 2.])
    """

    def __init__(
        self,
        adjacency: Union[sp.csr_array, sp.csr_matrix, EntityGraph],
        bands: Union[int, Bands] = 8,
        *,
        exact: Optional[bool] = None,
        degree: Optional[int] = None,
        padding: bool = True,
    ) -> None:
        self.bands = bands if isinstance(bands, Bands) else Bands.equal(bands)
        if degree is not None and (int(degree) != degree or degree < 1):
            raise ConfigError(f"degree: got {degree!r}; allowed: a whole number from 1.")
        links, self.padding = _as_scipy(adjacency), padding
        self.size = links.shape[0]
        linked = np.diff(links.indptr) > 0
        if padding and self.size and linked[0]:
            raise ConfigError(
                "Row 0 has neighbours, so it is not RecBole's padding. Give padding=False if all "
                "rows are entities."
            )
        connected = np.flatnonzero(linked)
        alone = np.flatnonzero(~linked)
        self._connected = torch.from_numpy(connected)
        self.isolated = torch.from_numpy(alone[1:] if padding and self.size else alone)
        self.exact = len(connected) <= EXACT_LIMIT if exact is None else exact
        self.degree = degree if degree or self.exact else 16 * len(self.bands)
        # Without the isolated vertices L - I is just -Â; those are added in closed form.
        self._links = sp.csr_array(links[connected][:, connected])
        self._matrices: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        if self.exact:
            values, self._vectors = np.linalg.eigh(np.eye(len(connected)) - self._links.toarray())
            self.eigenvalues = np.clip(values, 0.0, 2.0)
            self._shares = self.response(self.eigenvalues)

    def response(self, lam: Any) -> np.ndarray:
        """g_b(λ), sharp or smooth: (B, n) for λ (n,)."""
        if self.degree is None:
            return self.bands.sharp(lam)
        return self.bands.smooth(lam, self.degree)

    def energies(self, x: Any) -> np.ndarray:
        """E_b(X) = tr(Xᵀ g_b(L) X), (B,) float64, for features (n, d) of any floating dtype."""
        x = self._checked(x)
        at_zero = self.response(np.zeros(1))[:, 0]
        return self._connected_energies(x) + at_zero * self.isolated_energy(x)

    def isolated_energy(self, x: Any) -> float:
        """‖X‖² of the vertices without neighbours, which is part of the lowest band."""
        x = self._checked(x)
        return sum(float(part.double().square().sum()) for part in _blocks(x, self.isolated))

    def counts(self, seed: int = 0) -> np.ndarray:
        """tr g_b(L), (B,): how many of the eigenvalues, so of all knowledge, each band has.

        Scalable: estimated with 32 random vectors of ±1, to a percent or so on large graphs.
        """
        at_zero = self.response(np.zeros(1))[:, 0] * len(self.isolated)
        if self.exact:
            return self._shares.sum(axis=1) + at_zero
        signs = np.random.default_rng(seed).integers(0, 2, (len(self._connected), _PROBES))
        probes = torch.from_numpy(2.0 * signs - 1.0).float()
        return self._from_moments(self._moments(probes)) / _PROBES + at_zero

    def _checked(self, x: Any) -> torch.Tensor:
        x = torch.as_tensor(x).detach()
        if x.ndim != 2 or len(x) != self.size:
            raise ConfigError(
                f"features: got shape {tuple(x.shape)}; allowed: ({self.size}, d), a row for every "
                "vertex of the graph."
            )
        return x

    def _connected_energies(self, x: torch.Tensor) -> np.ndarray:
        if self.exact:
            rows = x.index_select(0, self._connected.to(x.device)).double().cpu().numpy()
            return self._shares @ np.square(self._vectors.T @ rows).sum(axis=1)
        total, ids = np.zeros(len(self.bands)), self._connected.to(x.device)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        for start in range(0, x.shape[1], _COLUMNS):
            columns = x[:, start : start + _COLUMNS].index_select(0, ids).to(dtype)
            total += self._from_moments(self._moments(columns.contiguous()))
        return total

    def _from_moments(self, moments: np.ndarray) -> np.ndarray:
        assert self.degree is not None
        return self.bands.coefficients(self.degree) @ moments

    def _moments(self, x: torch.Tensor) -> np.ndarray:
        """(degree + 1,), μ_m = tr(xᵀ T_m(-Â) x); ``x`` (connected, c) is overwritten."""
        assert self.degree is not None
        matrix = self._matrix(x.dtype, x.device)
        moments = np.zeros(self.degree + 2)
        before, now = x, torch.zeros_like(x).addmm_(matrix, x, alpha=-1.0)
        moments[0], moments[1] = _dot(x, x), _dot(x, now)
        for order in range(1, self.degree // 2 + 1):
            moments[2 * order] = 2.0 * _dot(now, now) - moments[0]
            if 2 * order == self.degree:
                break
            before.addmm_(matrix, now, beta=-1.0, alpha=-2.0)
            before, now = now, before
            moments[2 * order + 1] = 2.0 * _dot(before, now) - moments[1]
        return moments[: self.degree + 1]

    def _matrix(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Â among connected vertices, kept in the form that products with it are fastest in."""
        if (dtype, device) not in self._matrices:
            self._matrices = {(dtype, device): _in_torch(self._links, dtype, device)}
        return self._matrices[dtype, device]


def _as_scipy(adjacency: Union[sp.csr_array, sp.csr_matrix, EntityGraph]) -> sp.csr_array:
    if not isinstance(adjacency, EntityGraph):
        return sp.csr_array(adjacency).astype(np.float64)
    n = len(adjacency)
    data, indices, indptr = (
        part.cpu().numpy() for part in (adjacency.weights, adjacency.indices, adjacency.indptr)
    )
    return sp.csr_array((data.astype(np.float64), indices, indptr), shape=(n, n))


def _in_torch(links: sp.csr_array, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    values = torch.from_numpy(links.data).to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
        if device.type == "cpu" and not torch.backends.mkl.is_available():
            entries = links.tocoo()
            edges = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
            return torch.sparse_coo_tensor(edges, values, links.shape, check_invariants=False)
        kind = np.int32 if links.nnz < 2**31 else np.int64  # MKL's own: nothing to convert
        rows, columns = (
            torch.from_numpy(part.astype(kind)) for part in (links.indptr, links.indices)
        )
        matrix = torch.sparse_csr_tensor(
            rows, columns, values, size=links.shape, check_invariants=False
        )
        return matrix.to(device)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    """Σ one · other, (n, c) each: single precision within blocks of rows, double between them."""
    pairs = zip(one.split(_ROWS), other.split(_ROWS))
    return sum(float(torch.dot(a.reshape(-1), b.reshape(-1))) for a, b in pairs)


def _blocks(x: torch.Tensor, ids: torch.Tensor) -> Iterator[torch.Tensor]:
    """The rows ids of x, some at a time."""
    for part in ids.split(_ROWS):
        yield x.index_select(0, part.to(x.device))


@dataclass(frozen=True)
class LinearMap:
    """x ↦ x W + b. ``weight`` (d, d'), ``bias`` (d',)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, d'), in the dtype of the map."""
        return torch.addmm(self.bias, x.to(self.bias), self.weight)


def least_squares(
    student: torch.Tensor, teacher: torch.Tensor, *, ridge: float = 1e-6, padding: bool = True
) -> LinearMap:
    """The linear map, with a bias, that brings student features nearest to the teacher's.

    min ‖S W + 1 bᵀ - T‖²_F + r ‖W‖²_F, by one solve of d × d normal equations in double precision.

    Args:
        student: (n, d). teacher: (n, d').
        ridge: r as a share of the mean variance of a student's column, times n: small, and only
            there so that columns that depend on each other do no harm.
        padding: Whether row 0 is RecBole's padding, and is left out.

    Returns:
        The map, in single precision, or double where the teacher is.
    """
    rows = torch.arange(1 if padding else 0, len(student))
    width, count = student.shape[1], max(len(rows), 1)
    products = torch.zeros(width + 1, width + 1 + teacher.shape[1], dtype=torch.float64)
    for one, other in zip(_blocks(student, rows), _blocks(teacher, rows)):
        ours = torch.nn.functional.pad(one.double(), (0, 1), value=1.0)
        both = torch.cat([ours, other.double().to(ours.device)], dim=1)
        products += (ours.T @ both).cpu()
    mean = products[-1] / count  # of the columns of S, 1 and T
    centred = products - products[:, width : width + 1] * mean
    gram = centred[:width, :width]
    # Of columns that do not vary only rounding is left, which must not be divided by.
    rounding = 1e-12 * float(products.diagonal()[:width].mean())
    penalty = max(ridge * float(gram.diagonal().mean()), rounding) or 1.0
    weight = torch.linalg.solve(
        gram + penalty * torch.eye(width, dtype=torch.float64), centred[:width, width + 1 :]
    )
    bias = mean[width + 1 :] - mean[:width] @ weight
    dtype = torch.float64 if teacher.dtype == torch.float64 else torch.float32
    return LinearMap(weight.to(teacher.device, dtype), bias.to(teacher.device, dtype))


@dataclass(frozen=True)
class BandLosses:
    """The share of its teacher that a student has learnt, by band, on one side.

    Attributes:
        loss: (B,), E_b(P(S) - T), which sum to L_FD = ‖P(S) - T‖²_F.
        teacher: (B,), E_b(T). student: (B,), E_b(S).
        isolated: Of entities without neighbours, parts of the lowest band: loss, teacher, student.
    """

    loss: np.ndarray
    teacher: np.ndarray
    student: np.ndarray
    isolated: tuple[float, float, float]

    @property
    def relative(self) -> np.ndarray:
        """(B,), loss / E_b(T): 0 all learnt, 1 as much as knowing nothing; NaN without energy."""
        return relative_to(self.loss, self.teacher)


def relative_to(loss: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """loss / energy per band; NaN where a band has less than 1e-9 of all energy."""
    enough = energy > 1e-9 * max(energy.sum(), np.finfo(np.float64).tiny)
    return np.divide(loss, energy, out=np.full(len(energy), np.nan), where=enough)


def band_losses(
    spectrum: GraphSpectrum,
    student: torch.Tensor,
    teacher: torch.Tensor,
    projected: Optional[torch.Tensor] = None,
    teacher_energy: Optional[np.ndarray] = None,
) -> BandLosses:
    """Splits the distance between projected student and teacher among the bands of one side.

    Args:
        spectrum: Of the side's graph.
        student: (n, d). teacher: (n, d').
        projected: P(S), (n, d'); None: by :func:`least_squares`.
        teacher_energy: E_b(T), where it is known already.
    """
    if projected is None:
        projected = least_squares(student, teacher, padding=spectrum.padding)(student)
    error = projected - teacher.to(projected.device)
    energy = spectrum.energies(teacher) if teacher_energy is None else teacher_energy
    return BandLosses(
        spectrum.energies(error),
        energy,
        spectrum.energies(student),
        tuple(spectrum.isolated_energy(x) for x in (error, teacher, student)),  # type: ignore[arg-type]
    )


def with_lengths_of(rows: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Rows (n, d) in their own directions, of the lengths of the teacher's; zero rows stay zero.

    For projectors that were trained by cosine, which teaches directions only: then ‖P(S) - T‖² is
    Σ ‖t‖² · 2 (1 - cos).
    """
    own, wanted = (
        torch.linalg.vector_norm(x.to(rows), dim=1, keepdim=True) for x in (rows, teacher)
    )
    return torch.where(own > 0, rows * (wanted / own.clamp(min=torch.finfo(own.dtype).tiny)), rows)
