"""An approximate index of items by inner product: faiss, cells of similar items."""

from typing import Any

import numpy as np
import torch

from recbole_freqd.core.errors import require
from recbole_freqd.core.rng import derived_seed

_ROWS_AT_ONCE = 2**16  # made float32 on the CPU at once
_ROWS_PER_CELL = 39  # at least on average: faiss complains of fewer
_SAMPLED_PER_CELL = 64  # rows that the cells are found from
_ROUNDS = 10  # of k-means


class ItemIndex:
    """Items in cells, of which a search looks into those whose mean a user likes best.

    Cells are found by k-means on the vectors as they are, so that items of one cell are alike in
    length as well as in direction, and the product with a cell's mean is the mean score of its
    items: long vectors, of which lists are full, are not lost among short ones.

    Args:
        item_emb: (n_items, d), any floating dtype and device; read block by block.
        item_ids: (m,) int64, those of its rows that can be found.
        seed: Of the rows that the cells are found from, and of k-means.

    Raises:
        ConfigError: faiss is not installed.

    Example:
        >>> items = torch.tensor([[9.0], [1.0], [3.0]])
        >>> index = ItemIndex(items, torch.tensor([1, 2]), seed=0)  # doctest: +SKIP
        >>> index.search(torch.tensor([[2.0]]), k=1, nprobe=1).tolist()  # doctest: +SKIP
        [[2]]
    """

    def __init__(self, item_emb: torch.Tensor, item_ids: torch.Tensor, *, seed: int) -> None:
        faiss = _faiss()
        n, width = len(item_ids), item_emb.shape[1]
        self.n_cells = max(1, min(int(4 * n**0.5), n // _ROWS_PER_CELL))
        self._nearest = faiss.IndexFlatL2(width)
        self._index = faiss.IndexIVFFlat(
            self._nearest, width, self.n_cells, faiss.METRIC_INNER_PRODUCT
        )
        settings = self._index.cp
        settings.spherical, settings.niter, settings.seed = False, _ROUNDS, seed % 2**31
        settings.max_points_per_centroid = _SAMPLED_PER_CELL
        rng = np.random.default_rng(derived_seed(seed, 0))
        some = np.sort(rng.permutation(n)[: _SAMPLED_PER_CELL * self.n_cells])
        self._index.train(_rows(item_emb, item_ids[torch.from_numpy(some).to(item_ids.device)]))
        for ids in item_ids.split(_ROWS_AT_ONCE):
            self._index.add_with_ids(_rows(item_emb, ids), ids.cpu().numpy())
        self._means = faiss.IndexFlatIP(width)
        self._means.add(self._nearest.reconstruct_n(0, self.n_cells))

    def search(self, users: torch.Tensor, k: int, nprobe: int) -> torch.Tensor:
        """(b, k) int64 on the CPU, the best items found for vectors (b, d), by ascending id.

        Where too few are found, the first ones are 0.

        Args:
            users: Any floating dtype and device.
            k: At least 1.
            nprobe: Cells that are searched for each.
        """
        _faiss()
        queries = np.ascontiguousarray(users.detach().float().cpu().numpy())
        self._index.nprobe = min(nprobe, self.n_cells)
        likes, cells = self._means.search(queries, self._index.nprobe)
        _, ids = self._index.search_preassigned(queries, k, cells, likes)
        ids.sort(axis=1)
        return torch.from_numpy(ids).clamp_(min=0)


def _faiss() -> Any:
    """The package, with as many threads as torch has."""
    require(
        "faiss",
        "scale",
        "A list from an index",
        "For exact lists set index_items: null, or give recommend --exact.",
    )
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def _rows(table: torch.Tensor, ids: torch.Tensor) -> np.ndarray:
    rows = table[ids.to(table.device)].detach().float().cpu().numpy()
    return np.ascontiguousarray(rows)
