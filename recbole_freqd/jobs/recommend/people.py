"""The users that lists are for: those of a file, or new ones with their histories."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, join_names
from recbole_freqd.core.pair_files import Columns, read_pairs
from recbole_freqd.core.rows import Features
from recbole_freqd.features import adapter_of
from recbole_freqd.features.base import with_bias_columns
from recbole_freqd.features.check import are_exact, whole_table
from recbole_freqd.features.fold_in import fold_in
from recbole_freqd.features.scores import inspecting

_NAMED = 3
logger = logging.getLogger(__name__)


def read_users(users: Union[str, Path, Sequence[str]]) -> list[str]:
    """Tokens, each once: those given, or the lines of a file.

    Raises:
        ConfigError: The file cannot be read.
    """
    if not isinstance(users, (str, Path)):
        return list(dict.fromkeys(map(str, users)))
    try:
        lines = Path(users).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--users: {users} cannot be read: {error}. Allowed: a text file in UTF-8 with a token "
            "in each line."
        ) from error
    return list(dict.fromkeys(line for line in lines if line))


def places_of(wanted: Sequence[str], names: np.ndarray, option: str) -> np.ndarray:
    """(n,) int64, the ids of those tokens that are known; the others are counted in the log.

    Args:
        wanted: Tokens.
        names: (n_users,) str, tokens by id; 0 is the padding.
        option: That brought them.

    Raises:
        ConfigError: None is known.
    """
    import pandas as pd

    places = pd.Index(names[1:]).get_indexer(pd.Index(wanted)) + 1
    unknown = [token for token, place in zip(wanted, places) if place == 0]
    if len(unknown) == len(wanted):
        raise ConfigError(
            f"{option}: none of its {len(wanted)} users is known ({join_names(unknown, _NAMED)}). "
            "Allowed: tokens of the checkpoint's data; new users have histories: --histories."
        )
    if unknown:
        logger.warning(
            "%s: %d of %d users are unknown and left out: %s",
            option,
            len(unknown),
            len(wanted),
            join_names(unknown, _NAMED),
        )
    return places[places > 0].astype(np.int64)


@dataclass(frozen=True)
class NewUsers:
    """Users who came after training.

    Attributes:
        names: (b + 1,) str; 0 stands for nobody.
        chosen: (b + 1, n_items) sparse, non-zero for what they have, in the checkpoint's ids.
    """

    names: np.ndarray
    chosen: sp.csr_array

    def fold_into(self, model: Any) -> Features:
        """Their vectors (b + 1, d) and the items' (n_items, d), a bias of items as a column.

        Raises:
            ConfigError: The scores of the model are no products of vectors.
        """
        adapter = adapter_of(model)
        if not are_exact(model, adapter):
            raise ConfigError(
                f"--histories: {type(model).__name__} has no item vectors that its scores are "
                "products of, so no user can be folded in. Distil a student that has: "
                "docs/models.md."
            )
        with inspecting(model, adapter.caches):
            items = whole_table(adapter.rows(model).item, model.n_items, model).detach().cpu()
            bias = adapter.biases(model)[1]
        own_bias = None if bias is None else bias.detach().float().cpu()
        users = fold_in(
            items[1:].numpy(),
            self.chosen[:, 1:],
            item_bias=None if own_bias is None else own_bias[1:].numpy(),
        )
        return with_bias_columns((torch.from_numpy(users), items), (None, own_bias))


def read_new_users(path: Path, columns: Columns, item_names: np.ndarray) -> NewUsers:
    """Reads histories, and finds their items among those of a checkpoint.

    What is unknown is counted in the log and skipped; so are users with nothing that is known.

    Raises:
        ConfigError: The file is not there, is of another kind, or lacks a column; or nobody is
            left.
        CheckpointError: It cannot be read.
    """
    import pandas as pd

    table, _ = read_pairs(path, columns, "--histories")
    known = pd.Index(item_names[1:])
    places = known.get_indexer(pd.Index(table[columns.item])) + 1
    owners = table[columns.user].to_numpy()
    all_users = len(set(owners))
    owner, names = pd.factorize(owners[places > 0])
    if len(names) == 0:
        raise ConfigError(
            f"--histories: none of the items in {path} is known. Allowed: tokens of the "
            f"checkpoint's data in the column {columns.item}."
        )
    if (places == 0).any() or len(names) < all_users:
        logger.warning(
            "--histories: %d of %d lines name an unknown item and are skipped; %d of %d users have "
            "no other, and get no list.",
            (places == 0).sum(),
            len(places),
            all_users - len(names),
            all_users,
        )
    ids = owner + 1, places[places > 0]
    chosen = sp.csr_array((np.ones(len(owner), dtype=bool), ids), (len(names) + 1, len(item_names)))
    return NewUsers(np.concatenate([[""], names]).astype(np.str_), chosen)
