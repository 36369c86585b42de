"""Reads a RecBole dataset: tokens, pairs, and the training interactions as a matrix."""

from typing import Any, Optional

import numpy as np
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError

Known = tuple[np.ndarray, np.ndarray]
"""Masks (n_users,) and (n_items,) of the entities a teacher knows, the padding not among them."""


def tokens(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """The names of users and of items by id, (n_users,) and (n_items,) str; 0 is the padding."""
    user, item = (
        np.asarray(dataset.field2id_token[name]) for name in (dataset.uid_field, dataset.iid_field)
    )
    return user, item


def pairs(dataset: Any) -> np.ndarray:
    """(n, 2) int64, the interactions of a dataset in its order."""
    inter = dataset.inter_feat
    columns = [np.asarray(inter[name]) for name in (dataset.uid_field, dataset.iid_field)]
    return np.stack(columns, axis=1).astype(np.int64)


def _columns(dataset: Any) -> list[Any]:
    """All that is known of interactions, users and items: names and values in turn."""
    known = (dataset.inter_feat, dataset.user_feat, dataset.item_feat)
    tables = [table for table in known if table is not None]
    return [part for table in tables for name in sorted(table.columns)
            for part in (name, np.asarray(table[name]))]  # fmt: skip


def training_matrix(dataset: Any) -> sp.csr_array:
    """:func:`positive_matrix` of the training interactions.

    Raises:
        ConfigError: There is no interaction.
    """
    matrix = positive_matrix(dataset)
    if matrix.nnz == 0:
        raise ConfigError("The training data is empty. Check the dataset and its filters.")
    return matrix


def positive_matrix(dataset: Any) -> sp.csr_array:
    """(n_users, n_items) binary, the interactions; row and column 0 are empty.

    Where interactions have labels (RecBole's ``threshold``), those of 0 are none, as in a batch.
    """
    label = dataset.config["LABEL_FIELD"]
    labelled = label in dataset.inter_feat.columns
    matrix = sp.csr_array(dataset.inter_matrix(form="csr", value_field=label if labelled else None))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.data = np.ones_like(matrix.data)
    return matrix


def keep_known(user_items: sp.csr_array, known: Optional[Known]) -> sp.csr_array:
    """The interactions of known users with known items, in a matrix of the same shape."""
    if known is None:
        return user_items
    entries = user_items.tocoo()
    kept = known[0][entries.row] & known[1][entries.col]
    places = entries.row[kept], entries.col[kept]
    return sp.csr_array((entries.data[kept], places), shape=user_items.shape)
