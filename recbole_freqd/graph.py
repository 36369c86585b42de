"""Entity graphs: top-K co-occurrence, normalised, and the rows that a batch needs of them."""

import os
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import scipy.sparse as sp
import torch
from sparse_dot_topn import sp_matmul_topn

from recbole_freqd.errors import ConfigError
from recbole_freqd.rng import RandomStream

SIDES = ("user", "item")


def cooccurrence_graph(user_items: sp.csr_array, *, side: str, k: int) -> sp.csr_array:
    """The normalised adjacency of the graph that links entities sharing interactions.

    C = R Rᵀ (users) or Rᵀ R (items) with R the binary matrix; its diagonal is left out; a row
    keeps its ``k`` largest non-zero counts, of equal counts the smaller ids; these edges get
    weight 1 (W), A₀ = (W + Wᵀ) / 2, Â = D^(-1/2) A₀ D^(-1/2), with zero rows for degree zero.
    C is never held: each row is reduced to its top while it is made.

    Args:
        user_items: (n_users, n_items), non-zero where a user interacted with an item. Repeated
            entries count once.
        side: ``"user"`` or ``"item"``.
        k: Neighbours kept per entity, at least 1, before symmetrisation.

    Returns:
        Â, (n, n) float64, symmetric, sorted indices, empty diagonal.

    Raises:
        ConfigError: Unknown side, ``k`` below 1, or counts too large to order exactly.

    Source: Zhu & Zhang, KDD 2025 (arXiv 2411.10676), §4. Deviation from the authors' public code:
        it drops "self" by its position among ties and links entities that share nothing.

    Example:
        >>> R = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
        >>> cooccurrence_graph(R, side="item", k=1).toarray()
        array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 0., 0.]])
    """
    if side not in SIDES:
        raise ConfigError(f"side: got {side!r}; allowed: 'user' or 'item'.")
    if int(k) != k or k < 1:
        raise ConfigError(f"k: got {k!r}; allowed: an integer of at least 1.")
    incidence = sp.csr_array(user_items != 0).astype(np.int64)
    incidence.sum_duplicates()
    if side == "item":
        incidence = sp.csr_array(incidence.T)
    return _normalise(_symmetrise(_top_neighbours(incidence, int(k))))


def _top_neighbours(incidence: sp.csr_array, k: int) -> sp.csr_array:
    """(n, n) with 1 at the k largest off-diagonal counts of each row, ties to the smaller id.

    ``sp_matmul_topn`` promises no order among ties, so the counts are made distinct in integers:
    column j of the right factor holds S - j instead of 1, and a count c becomes c (S - j). With
    S > max(c) n the order of different counts is kept and equal counts fall with j.
    """
    n = incidence.shape[0]
    largest = int(np.diff(incidence.indptr).max(initial=0))
    scale = largest * n + 1
    if largest * scale >= 2**63:
        raise ConfigError(
            f"An entity has {largest} interactions among {n} entities: too many to order exactly. "
            "Filter the busiest entities out (RecBole's user_inter_num_interval, "
            "item_inter_num_interval)."
        )
    weighted = incidence.copy()
    weighted.data = scale - np.repeat(np.arange(n, dtype=np.int64), np.diff(incidence.indptr))
    # One more than k, since an entity is among its own top until it is taken out below.
    top = sp_matmul_topn(
        sp.csr_matrix(incidence),
        sp.csr_matrix(weighted.T),
        top_n=min(k + 1, n),
        sort=True,
        n_threads=os.cpu_count(),
    )
    rows = np.repeat(np.arange(n), np.diff(top.indptr))
    other = top.indices != rows
    rows, columns = rows[other], top.indices[other]
    counts = np.bincount(rows, minlength=n)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, columns = rows[place < k], columns[place < k]
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def _symmetrise(weights: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((weights + weights.T) / 2)


def _normalise(weights: sp.csr_array) -> sp.csr_array:
    """D^(-1/2) A D^(-1/2), zero rows where the degree is zero."""
    degree = np.asarray(weights.sum(axis=1)).ravel()
    inverse_root = np.zeros_like(degree)
    inverse_root[degree > 0] = degree[degree > 0] ** -0.5
    scaling = sp.diags_array(inverse_root)
    normalised = sp.csr_array(scaling @ weights @ scaling)
    normalised.sort_indices()
    return normalised


@dataclass(frozen=True)
class Adjacency:
    """Â of a graph, or of the part of it a batch needs, in torch.

    Attributes:
        row, col: (n_edges,) int64, positions of the stored entries.
        weight: (n_edges,) float, their values.
        connected: (n,) bool, True where the degree *in the whole graph* is positive: J of the
            Laplacian, also for a row that has lost all its edges to dropout.
    """

    row: torch.Tensor
    col: torch.Tensor
    weight: torch.Tensor
    connected: torch.Tensor

    def laplacian(self, x: torch.Tensor) -> torch.Tensor:
        """L x = J x - Â x. ``x`` is (n, d); returns (n, d) in its dtype, at least float32."""
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        size = (len(self.connected), len(self.connected))
        with torch.autocast(device_type=x.device.type, enabled=False):  # no half sparse products
            # Not coalesced on purpose: entries are distinct already, and checking would sort them.
            matrix = torch.sparse_coo_tensor(
                torch.stack([self.row, self.col]),
                self.weight.to(x.dtype),
                size,
                check_invariants=False,
            )
            return x * self.connected.to(x.dtype)[:, None] - torch.sparse.mm(matrix, x)


@dataclass(frozen=True)
class Neighbourhood:
    """The part of a graph that a polynomial of L needs for some rows.

    Attributes:
        nodes: (n_nodes,) int64, sorted ids of the entities in it.
        rows: (b,) int64, positions in ``nodes`` of the rows asked for.
        adjacency: Â between the nodes; complete in every row that ``rows`` depends on.
    """

    nodes: torch.Tensor
    rows: torch.Tensor
    adjacency: Adjacency


class EntityGraph(torch.nn.Module):
    """Â in CSR form, from which the rows of a batch are cut.

    Args:
        adjacency: Â, (n, n), symmetric, as :func:`cooccurrence_graph` returns it.
        dtype: Of the stored weights.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self, adjacency: Union[sp.csr_array, sp.csr_matrix], dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        csr = sp.csr_array(adjacency)
        # Not persistent: a graph is rebuilt from the data, never taken from a checkpoint.
        for name, array, kind in (
            ("indptr", csr.indptr, torch.int64),
            ("indices", csr.indices, torch.int64),
            ("weights", csr.data, dtype),
        ):
            self.register_buffer(name, torch.as_tensor(array.copy()).to(kind), persistent=False)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def edges_of(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The stored entries of some rows.

        Args:
            ids: (b,) int64.

        Returns:
            ``(owner, edge)``, both (n_edges,): position in ``ids`` and position in the CSR arrays.
        """
        start = self.indptr[ids]
        count = self.indptr[ids + 1] - start
        owner = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), count)
        first = torch.cumsum(count, 0) - count
        edge = torch.arange(len(owner), device=ids.device) - first[owner] + start[owner]
        return owner, edge

    def neighbourhood(
        self,
        ids: torch.Tensor,
        hops: int,
        keep_prob: float = 1.0,
        stream: Optional[RandomStream] = None,
    ) -> Neighbourhood:
        """What a polynomial of degree ``hops`` in L needs to be right in the rows ``ids``.

        Edge dropout: each stored entry (each direction by itself) is kept with ``keep_prob`` and
        divided by it; one draw serves every power of L.

        Args:
            ids: (b,) int64, sorted and distinct.
            hops: Degree of the polynomial, at least 0.
            keep_prob: In (0, 1].
            stream: Where the mask is drawn from; needed when ``keep_prob`` < 1.
        """
        owners = ids
        for _ in range(hops - 1):
            owners = torch.unique(torch.cat([owners, self.indices[self.edges_of(owners)[1]]]))
        if hops > 0:
            owner, edge = self.edges_of(owners)
        else:
            owner = edge = torch.empty(0, dtype=torch.int64, device=ids.device)
        weight = self.weights[edge]
        if keep_prob < 1.0:
            if stream is None:
                raise ConfigError("keep_prob < 1 needs a RandomStream to draw the mask from.")
            kept = stream.keep((len(edge),), keep_prob, like=weight)
            owner, edge, weight = owner[kept], edge[kept], weight[kept] / keep_prob
        nodes, place = torch.unique(torch.cat([owners, self.indices[edge]]), return_inverse=True)
        place_of_owner, col = place[: len(owners)], place[len(owners) :]
        rows = torch.searchsorted(nodes, ids)
        connected = self.indptr[nodes + 1] > self.indptr[nodes]
        adjacency = Adjacency(place_of_owner[owner], col, weight, connected)
        return Neighbourhood(nodes, rows, adjacency)
