"""Features of users and items, handed out by rows: what losses read, whatever they come from."""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Callable, Optional, Union

import torch
from torch.nn import functional as F

from recbole_freqd.core.rng import RandomStream

try:  # not public, though what SciPy's public products of sparse and dense have run on since 0.14
    from scipy.sparse._sparsetools import csc_matvecs
except ImportError:
    csc_matvecs = None


_ROWS_AT_ONCE = 65_536

Features = tuple[torch.Tensor, torch.Tensor]
"""User features (n_users, d) and item features (n_items, d'), row 0 being RecBole's padding."""


def single_precision(device: torch.device) -> torch.autocast:
    """Inside, autocast is off."""
    return torch.autocast(device_type=device.type, enabled=False)


def empty_rows(
    n_rows: int, width: int, dtype: torch.dtype, device: Any, *, mapped: bool = False
) -> torch.Tensor:
    """Uninitialised memory (n_rows, width), or with ``mapped`` a file that is paged in and out.

    The file lies where Python puts temporary files (``TMPDIR``) and is gone with the process.
    """
    if not mapped:
        return torch.empty(n_rows, width, dtype=dtype, device=device)
    with tempfile.NamedTemporaryFile(prefix="recbole_freqd-", suffix=".features") as file:
        # On POSIX a mapping outlives the name of its file.
        flat = torch.from_file(file.name, shared=True, size=n_rows * width, dtype=dtype)
    return flat.view(n_rows, width)


def changed_rows(
    table: torch.Tensor,
    change: Callable[[torch.Tensor, slice], torch.Tensor],
    into: Optional[torch.Tensor] = None,
) -> torch.Tensor:
    """A table (n, d) changed block by block, in memory or in a file as it is itself.

    Args:
        table: Which is left as it is.
        change: Gives, of a block (b, d) and its rows, the new block.
        into: Where the result is written; None: a new table of this shape and precision.

    Example:
        >>> changed_rows(torch.ones(2, 1), lambda block, rows: 2 * block).tolist()
        [[2.0], [2.0]]
    """
    if into is None:
        n_rows, width = table.shape
        into = empty_rows(n_rows, width, table.dtype, table.device, mapped=is_mapped(table))
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        into[rows] = change(table[rows], rows)
    return into


def is_mapped(values: torch.Tensor) -> bool:
    """Whether a tensor lies in a file, as :func:`empty_rows` makes them."""
    return values.device.type == "cpu" and values.untyped_storage().filename is not None


@dataclass(frozen=True)
class WeightedSums:
    """Some rows of a sparse matrix: which rows of a table are to be summed, with which weights.

    Attributes:
        owner: (n_entries,) int64, ascending: the sum that an entry belongs to.
        offsets: (b,) int64, the first entry of each sum.
        columns: (n_entries,) int64, rows of the table.
        weights: (n_entries,) float.
        n_columns: Rows of the table, where it holds those that are summed and no others.

    Example:
        >>> sums = WeightedSums.one_each(torch.tensor([1, 1]))
        >>> sums.of(torch.tensor([[1.0], [2.0]])).tolist()
        [[2.0], [2.0]]
    """

    owner: torch.Tensor
    offsets: torch.Tensor
    columns: torch.Tensor
    weights: torch.Tensor
    n_columns: Optional[int] = None

    @classmethod
    def one_each(cls, ids: torch.Tensor) -> "WeightedSums":
        """The rows ids (b,) themselves, each as a sum of one entry."""
        every = torch.arange(len(ids), device=ids.device)
        return cls(every, every, ids, torch.ones(len(ids), device=ids.device))

    @classmethod
    def of_lists(cls, ids: torch.Tensor, weights: torch.Tensor) -> "WeightedSums":
        """The sum over each list of ids (b, k), with weights (b, k)."""
        every = torch.arange(len(ids), device=ids.device)
        owner = every.repeat_interleave(ids.shape[1])
        return cls(owner, every * ids.shape[1], ids.reshape(-1), weights.reshape(-1))

    def of(self, table: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
        """(b, d), the sums over a table (n, d), differentiable once.

        Args:
            table: (n, d).
            in_place: See :class:`FeatureRows`; the table is a parameter then.
        """
        return _Sums.apply(table, self, in_place)

    def compacted(self) -> tuple[torch.Tensor, "WeightedSums"]:
        """The distinct rows (m,) that are summed, and the same sums over a table of these only."""
        nodes, place = torch.unique(self.columns, return_inverse=True)
        return nodes, replace(self, columns=place, n_columns=len(nodes))

    @cached_property
    def transposed(self) -> "WeightedSums":
        """Of compacted ones: which sums each row of the table is in, so (m,) sums over (b, d)."""
        order = self.columns.argsort()
        counts = torch.bincount(self.columns, minlength=self.n_columns or 0)
        return WeightedSums(
            self.columns[order], counts.cumsum(0) - counts, self.owner[order], self.weights[order]
        )

    def add_transposed(self, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Adds to the rows (n, d) of ``total``, in place, each sum's x (b, d) times its weights."""
        if _scipy_can_add(total):
            # One pass along the entries; torch would write them all out first (4 to 6 times as
            # slow). SciPy's own products do this too, but into new memory of n rows.
            ends = F.pad(self.offsets, (0, 1), value=len(self.columns))
            arrays = self.columns, self.weights.to(total.dtype), x.to(total.dtype).reshape(-1)
            columns, weights, values = (array.detach().numpy() for array in arrays)
            into = total.view(-1).numpy()
            size = total.shape[0], x.shape[0], total.shape[1]
            csc_matvecs(*size, ends.numpy(), columns, weights, values, into)
            return total
        spread = x.index_select(0, self.owner)
        spread *= self.weights.to(x.dtype)[:, None]
        return total.index_add_(0, self.columns, spread.to(total.dtype))

    def with_dropout(
        self, ids: torch.Tensor, keep_prob: float, stream: RandomStream
    ) -> "WeightedSums":
        """Edges (entries off the diagonal) kept with ``keep_prob`` and divided by it.

        Args:
            ids: (b,) int64, the row of the matrix that each sum is.
            keep_prob: In (0, 1].
            stream: Where the mask is drawn from.
        """
        own = self.columns == ids[self.owner]
        kept = own | stream.bernoulli((len(own),), keep_prob, like=self.weights)
        weights = torch.where(own, self.weights, self.weights / keep_prob)[kept]
        owner = self.owner[kept]
        counts = torch.bincount(owner, minlength=len(ids))
        return WeightedSums(owner, counts.cumsum(0) - counts, self.columns[kept], weights)

    def totals(self) -> torch.Tensor:
        """(b,), the sum of the weights of each."""
        zeros = self.weights.new_zeros(len(self.offsets))
        return zeros.index_add_(0, self.owner, self.weights)


@dataclass(frozen=True)
class FeatureRows:
    """Features, computed only for the entities asked for.

    Attributes:
        user: From user ids (b,) int64 to their features (b, d), differentiable.
        item: From item ids (b,) int64 to their features (b, d'), differentiable.
        tables: The two tables, where the features are rows of tables; then sums are taken from
            them directly.
        in_place: Whether gradients of tables that are parameters are added to the ``.grad`` that
            the base loss has made anyway, at the end of the backward pass. That spares a second
            dense gradient of the size of the table, but hides the gradient from
            ``torch.autograd.grad`` and from hooks of the parameter (DistributedDataParallel's).
        scorer: From users (b,) and items (b, k) to their scores (b, k), differentiable, where these
            are not the dot products of the features.
        biases: (n_users,) and (n_items,), or None: what scores have beside the dot products.
    """

    user: Callable[[torch.Tensor], torch.Tensor]
    item: Callable[[torch.Tensor], torch.Tensor]
    tables: Optional[Features] = None
    in_place: bool = False
    scorer: Optional[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = None
    biases: tuple[Optional[torch.Tensor], Optional[torch.Tensor]] = (None, None)

    @classmethod
    def of_tables(
        cls, user_emb: torch.Tensor, item_emb: torch.Tensor, *, in_place: bool = False
    ) -> "FeatureRows":
        """The rows of two tables, (n_users, d) and (n_items, d')."""
        return cls(
            lambda ids: user_emb.index_select(0, ids),
            lambda ids: item_emb.index_select(0, ids),
            (user_emb, item_emb),
            in_place,
        )

    def of(self, side: str, ids: torch.Tensor) -> torch.Tensor:
        """The features (b, d) of ids (b,) of a side, ``"user"`` or ``"item"``."""
        if self.in_place and self.tables is not None:
            return self.summed(side, WeightedSums.one_each(ids))
        return (self.user if side == "user" else self.item)(ids)

    def exchanged(self) -> "FeatureRows":
        """The same with users and items exchanged, where the scores are products."""
        tables = None if self.tables is None else (self.tables[1], self.tables[0])
        biases = self.biases[1], self.biases[0]
        return replace(self, user=self.item, item=self.user, tables=tables, biases=biases)

    def scores(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """The scores (b, k) of users (b,) for items (b, k) of their own, at least float32.

        They rank as the model does; where that puts a sigmoid on top, they are what is below it.
        """
        if self.scorer is not None:
            return _at_least_single(self.scorer(user_ids, item_ids))
        users = _at_least_single(self.of("user", user_ids))
        with single_precision(users.device):
            return self.with_biases(self._products(users, item_ids), user_ids, item_ids)

    def _products(self, users: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """(b, k), dot products of users' rows (b, d) with the rows of items (b, k)."""
        if self.tables is not None and self.tables[1].dtype == users.dtype:
            table = self.tables[1]
            in_place = self.in_place and table.is_leaf and table.requires_grad
            return _ListProducts.apply(users, table, item_ids, in_place)
        items = _at_least_single(self._items(item_ids.reshape(-1)))
        return _list_products(users, items.view(*item_ids.shape, items.shape[-1]))

    def with_biases(
        self, products: torch.Tensor, user_ids: torch.Tensor, item_ids: torch.Tensor
    ) -> torch.Tensor:
        """Dot products (b, k) of users (b,) and items, (b, k) or (k,), and biases on top."""
        of_users, of_items = self.biases
        if of_users is not None:
            products = products + of_users[user_ids][:, None]
        return products if of_items is None else products + of_items[item_ids]

    def _items(self, ids: torch.Tensor) -> torch.Tensor:
        """The features (b, d') of items with many repeats; each is computed once."""
        if self.tables is not None:
            return self.of("item", ids)
        distinct, place = torch.unique(ids, return_inverse=True)
        return self.of("item", distinct).index_select(0, place)

    def summed(self, side: str, sums: WeightedSums) -> torch.Tensor:
        """(b, d), weighted sums of features, at least float32; each entity is computed once."""
        if self.tables is None:
            nodes, sums = sums.compacted()
            return sums.of(_at_least_single(self.of(side, nodes)))
        table = self.tables[0 if side == "user" else 1]
        in_place = self.in_place and table.is_leaf and table.requires_grad
        return sums.of(_at_least_single(table), in_place=in_place)


def as_rows(features: Union[FeatureRows, Features]) -> FeatureRows:
    """Turns tables into :class:`FeatureRows`; leaves those unchanged.

    Example:
        >>> rows = as_rows((torch.eye(2), torch.tensor([[3.0, 5.0]])))
        >>> rows.scores(torch.tensor([0, 1]), torch.tensor([[0], [0]])).tolist()
        [[3.0], [5.0]]
    """
    return features if isinstance(features, FeatureRows) else FeatureRows.of_tables(*features)


def _scipy_can_add(total: torch.Tensor) -> bool:
    known = csc_matvecs is not None and total.dtype in (torch.float32, torch.float64)
    return known and total.device.type == "cpu" and total.is_contiguous()


def _at_least_single(values: torch.Tensor) -> torch.Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


class _Sums(torch.autograd.Function):
    """Weighted sums of the rows of a table; its backward is faster than that of torch's lookup."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, sums: WeightedSums, in_place: bool) -> torch.Tensor:
        ctx.table, ctx.sums, ctx.in_place = table, sums, in_place
        return _bag(table.detach(), sums)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Optional[torch.Tensor], None, None]:
        table, sums = ctx.table, ctx.sums
        if sums.n_columns is not None:  # all rows of the table have a gradient: nothing is added to
            return _bag(gradient.contiguous(), sums.transposed).to(table.dtype), None, None
        return _gradient_of_table(table, sums, gradient, ctx.in_place), None, None


class _ListProducts(torch.autograd.Function):
    """Dot products of rows with lists of a table's rows, whose gradients are weighted sums.

    Torch's own backward writes an array of all listed rows, three times.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, table: torch.Tensor, ids: torch.Tensor, in_place: bool
    ) -> torch.Tensor:
        ctx.rows, ctx.table, ctx.ids, ctx.in_place = rows.detach(), table, ids, in_place
        listed = table.detach().index_select(0, ids.reshape(-1))
        return _list_products(ctx.rows, listed.view(*ids.shape, table.shape[1]))

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[Optional[torch.Tensor], Optional[torch.Tensor], None, None]:
        sums = WeightedSums.of_lists(ctx.ids, gradient)
        of_rows = _bag(ctx.table.detach(), sums) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_rows, None, None, None
        return of_rows, _gradient_of_table(ctx.table, sums, ctx.rows, ctx.in_place), None, None


def _gradient_of_table(
    table: torch.Tensor, sums: WeightedSums, gradient: torch.Tensor, in_place: bool
) -> Optional[torch.Tensor]:
    """That of a table whose rows are in sums of this gradient; None where it is added later."""

    def add_to_grad() -> None:
        with torch.no_grad():
            if table.grad is None:
                table.grad = torch.zeros_like(table)
            sums.add_transposed(gradient, table.grad)

    if not in_place:
        return sums.add_transposed(gradient, torch.zeros_like(table))
    # At the end of the pass: then the base loss's dense gradient is there to be added to.
    torch.autograd.Variable._execution_engine.queue_callback(add_to_grad)
    return None


def _list_products(rows: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
    """(b, k), the dot products of rows (b, d) with their lists (b, k, d)."""
    return torch.einsum("bd,bkd->bk", rows, lists)


def _bag(table: torch.Tensor, sums: WeightedSums) -> torch.Tensor:
    weights = sums.weights.to(table.dtype)
    return F.embedding_bag(
        sums.columns, table, sums.offsets, per_sample_weights=weights, mode="sum"
    )
