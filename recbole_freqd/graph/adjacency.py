"""A graph in torch: its normalised adjacency, and what edge dropout leaves of it."""

from dataclasses import dataclass
from typing import Optional, Union

import scipy.sparse as sp
import torch

from recbole_freqd.core.rows import single_precision

_DRAWS = 2**31  # different random numbers; beside them in 64 bits is room for as many rows


@dataclass(frozen=True)
class Adjacency:
    """Â of a graph, or of what edge dropout leaves of it, in torch.

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

    def bounded(self, max_degree: int, generator: torch.Generator) -> "Adjacency":
        """The same with ``max_degree`` entries a row at most, see :meth:`EntityGraph.dropped`.

        Args:
            max_degree: At least 1.
            generator: Of the CPU, so that the draw is the same on every device.
        """
        counts = torch.bincount(self.row, minlength=len(self.connected))
        (entry,) = (counts > max_degree).index_select(0, self.row).nonzero(as_tuple=True)
        drawn = torch.randint(_DRAWS, (len(entry),), generator=generator).to(entry.device)
        owner = self.row[entry]  # ascending, as it is after the sort by row and then by draw
        order = (owner * _DRAWS + drawn).argsort(stable=True)
        start = torch.searchsorted(owner, owner)
        place = torch.arange(len(entry), device=entry.device) - start
        kept = torch.ones_like(self.row, dtype=torch.bool)
        kept[entry[order[place >= max_degree]]] = False
        scale = (counts.to(self.weight.dtype) / max_degree).clamp(min=1.0)
        row = self.row[kept]
        weight = self.weight[kept] * scale[row]
        return Adjacency(row, self.col[kept], weight, self.connected)

    def laplacian(self, x: torch.Tensor) -> torch.Tensor:
        """L x = J x - Â x. ``x`` is (n, d); returns (n, d) in its dtype, at least float32."""
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        size = (len(self.connected), len(self.connected))
        with single_precision(x.device):  # no half sparse products
            # Not coalesced on purpose: entries are distinct already, and checking would sort them.
            matrix = torch.sparse_coo_tensor(
                torch.stack([self.row, self.col]),
                self.weight.to(x.dtype),
                size,
                check_invariants=False,
            )
            return x * self.connected.to(x.dtype)[:, None] - torch.sparse.mm(matrix, x)


class EntityGraph(torch.nn.Module):
    """Â in CSR form, from which filters are made.

    Args:
        adjacency: Â, (n, n), symmetric, as :func:`cooccurrence_graph` returns it.
        dtype: Of the stored weights.

    Example:
        >>> graph = EntityGraph(sp.csr_array([[0.0, 1.0], [1.0, 0.0]]))
        >>> graph.adjacency().laplacian(torch.tensor([[1.0], [3.0]])).tolist()
        [[-2.0], [2.0]]
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

    def adjacency(self) -> Adjacency:
        """Â as row and column positions."""
        everyone = torch.arange(len(self), device=self.indptr.device)
        row = torch.repeat_interleave(everyone, self.indptr.diff())
        return Adjacency(row, self.indices, self.weights, self.indptr.diff() > 0)

    def dropped(self, keep_prob: float, seed: int, max_degree: Optional[int] = None) -> Adjacency:
        """What edge dropout leaves: each stored entry stays with ``keep_prob``, divided by it.

        Each direction of an edge falls by itself. J stays that of the whole graph. A row with more
        than ``max_degree`` entries left, say n, keeps that many of them, each set of them as likely
        as any other, times n / ``max_degree``: its mean over the masks is that of the whole graph.

        Args:
            keep_prob: In (0, 1].
            seed: Of the mask; the same on every device.
            max_degree: At least 1; None: no bound.
        """
        whole = self.adjacency()
        if keep_prob == 1.0 and max_degree is None:
            return whole
        generator, left = torch.Generator().manual_seed(seed), whole
        if keep_prob < 1.0:
            kept = torch.rand(len(self.weights), generator=generator) < keep_prob
            kept = kept.to(whole.row.device)
            weight = whole.weight[kept] / keep_prob
            left = Adjacency(whole.row[kept], whole.col[kept], weight, whole.connected)
        return left if max_degree is None else left.bounded(max_degree, generator)
