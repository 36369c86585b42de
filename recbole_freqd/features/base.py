"""Adapters: they read the features that the scores of a family of models are made of."""

from typing import Any, Callable, Optional

import torch

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.registry import Registry
from recbole_freqd.core.rows import FeatureRows, Features, empty_rows, is_mapped
from recbole_freqd.features.low_rank import Scores
from recbole_freqd.features.scores import ModelRanker, ScoredUsers
from recbole_freqd.features.warm import PROPAGATED, Target, fill_rows, start_propagated, tables_of

Biases = tuple[Optional[torch.Tensor], Optional[torch.Tensor]]


class FeatureAdapter:
    """Reads the features of a family of models.

    Where the adapter is ``exact``, the score of user u and item i is, up to a monotone map, the dot
    product of their features plus their biases: then the features are taught as they are. Where it
    is not, a teacher's features come from the truncated SVD of its scores, and ``rows`` (if a model
    of the family can be trained) are the representation that a student is steered by.

    Attributes:
        student: What a student's features are, in words; None: it cannot be a student.
        closed_form: Whether the model is computed when it is built, so that one epoch is all.
        capacity: RecBole's keys that set the width of a student's features.
        caches: Attributes that keep scores of earlier weights.
        learned: Attributes that are learned; those beside the ``state_dict`` above all.
        reads_histories: Where it is not ``exact``, whether its scores read what users have chosen.
        random_in_eval: Whether random numbers are drawn where features are read in eval mode.
        extra: Package that RecBole imports for this model only, and the extra of ours that
            installs it.
        note: What a user of the model has to know, in words.
        shared_forward: A method or submodule that ``calculate_loss`` calls and whose result is, or
            gives, the features: in training they are then not computed a second time.
        pairs_by: Where it is not ``exact``, how scores of chosen pairs are read: ``"predict"``;
            ``"forward"``, what ``predict`` puts a sigmoid on; ``"rows"``, out of the scores of all
            items (of a model that makes these anyway).
        warm: How a student's weights can be set so that its features are given ones: ``"tables"``,
            they are rows of tables; ``"propagated"``, they are a fixed linear function of tables;
            anything else is the reason why not, in words that follow "cannot start warm: ".
        warm_biases: Whether it has a bias of its own for each user, for each item, that can begin
            as a given one.
        warm_spare: Columns of its features that it needs for itself when it is started.
    """

    student: Optional[str] = None
    closed_form: bool = False
    capacity: tuple[str, ...] = ()
    caches: tuple[str, ...] = ("restore_user_e", "restore_item_e")
    learned: tuple[str, ...] = ()
    reads_histories: bool = False
    random_in_eval: bool = False
    extra: Optional[tuple[str, str]] = None
    note: str = ""
    shared_forward: Optional[str] = None
    pairs_by: str = "predict"
    warm: str = "its adapter does not say which of its weights its features are made of"
    warm_biases: tuple[bool, bool] = (False, False)
    warm_spare: int = 0

    def exact(self, model: Any) -> bool:
        """Whether dot products of the features, plus biases, rank as the model does."""
        return True

    def rows(self, model: Any) -> FeatureRows:
        """The features as they are now, differentiable."""
        raise NotImplementedError

    def rows_from_calls(self, model: Any, results: list[Any]) -> FeatureRows:
        """The features, from what ``shared_forward`` returned during one ``calculate_loss``."""
        return FeatureRows.of_tables(*results[-1][:2])

    def biases(self, model: Any) -> Biases:
        """Biases (n_users,) and (n_items,) that the scores contain, or None."""
        return None, None

    def scores(self, model: Any, progress: bool) -> Scores:
        """The score matrix of a model that is not ``exact``, for the SVD."""
        return ScoredUsers(model, progress)

    def ranker(self, model: Any) -> Ranker:
        """What a model that is not ``exact`` ranks by."""
        return ModelRanker(model, self.caches, self.pairs_by)

    def warm_by(self, model: Any) -> str:
        """``warm``, as the keys of this model have it."""
        return self.warm

    def start(self, model: Any, target: Target) -> int:
        """Sets the weights so that the features are the target; inside ``inspecting``.

        Returns:
            The steps that an iterative solution took; 0 where weights are just assigned.

        Raises:
            ConfigError: The features are not what ``warm`` says.
        """
        if self.warm_by(model) == PROPAGATED:
            return start_propagated(model, lambda: self.rows(model), target)
        user_table, item_table = tables_of(model)
        fill_rows(user_table, target.user_emb, target.user_mask)
        fill_rows(item_table, target.item_emb, target.item_mask)
        return 0

    def check(self, model: Any) -> None:
        """Raises ConfigError where RecBole would fail later with these keys and data."""


ADAPTERS: Registry[FeatureAdapter] = Registry("feature adapter for model")
"""Adapters by the name of the model class."""


def adapts(*names: str) -> Callable[[type[FeatureAdapter]], type[FeatureAdapter]]:
    """Decorates a class: its instance becomes the adapter of the named models."""

    def register(adapter: type[FeatureAdapter]) -> type[FeatureAdapter]:
        for name in names:
            ADAPTERS.register(name)(adapter())
        return adapter

    return register


def with_bias_columns(features: Features, biases: Biases) -> Features:
    """Biases as columns: [U, b_u, 1] and [V, 1, b_i], of those that there are.

    Without any these are the same tables.
    """
    columns: tuple[list[torch.Tensor], ...] = ([], [])
    for side, bias in enumerate(biases):
        if bias is not None:
            columns[side].append(bias.detach())
            columns[1 - side].append(features[1 - side].new_ones(len(features[1 - side])))
    user, item = map(_with_columns, features, columns)
    return user, item


def _with_columns(table: torch.Tensor, columns: list[torch.Tensor]) -> torch.Tensor:
    """A table (n, d) and columns (n,) beside it, in memory or in a file as the table is."""
    if not columns:
        return table
    (n_rows, width), dtype = table.shape, table.dtype
    for column in columns:
        dtype = torch.promote_types(dtype, column.dtype)
    made = empty_rows(n_rows, width + len(columns), dtype, table.device, mapped=is_mapped(table))
    made[:, :width] = table.detach()
    for place, column in enumerate(columns, start=width):
        made[:, place] = column
    return made
