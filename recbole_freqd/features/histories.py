"""Models that make a user (or an item) of the interactions in the training data."""

from typing import Any

import torch
from torch.nn import functional as F

from recbole_freqd.core.rankers import user_blocks
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import Biases, FeatureAdapter, adapts
from recbole_freqd.features.warm import (
    PROPAGATED,
    TABLES,
    Propagation,
    Target,
    fill_bias,
    fill_rows,
    solve,
    with_rows,
)


def _sum_of_history(model: Any, users: torch.Tensor, mode: str = "sum") -> torch.Tensor:
    """(b, d), sum or mean of the source embeddings of each user's items; 0 where there is none."""
    history = model.history_item_matrix[users]
    return F.embedding_bag(history, model.item_src_embedding.weight, mode=mode, padding_idx=0)


@adapts("FISM")
class FISMHistory(FeatureAdapter):
    """FISM: the user is the normalised sum of the source embeddings of the history.

    Deviation: a user without history has length 1 here, where RecBole's power may be infinite.
    """

    student = "normalised sum of `item_src_embedding` over the history, `item_dst_embedding`"
    capacity = ("embedding_size",)
    warm = PROPAGATED
    warm_biases = (True, True)

    def rows(self, model: Any) -> FeatureRows:
        def user(ids: torch.Tensor) -> torch.Tensor:
            lengths = model.history_lens[ids].clamp(min=1).unsqueeze(1).float()
            return _sum_of_history(model, ids) * lengths.pow(-model.alpha)

        return FeatureRows(user, lambda ids: model.item_dst_embedding.weight.index_select(0, ids))

    def biases(self, model: Any) -> Biases:
        return model.user_bias, model.item_bias

    def start(self, model: Any, target: Target) -> int:
        """Items and biases are tables; users are linear in the source embeddings."""
        fill_rows(model.item_dst_embedding.weight, target.item_emb, target.item_mask)
        fill_bias(model.user_bias, target.user_bias, target.user_mask)
        fill_bias(model.item_bias, target.item_bias, target.item_mask)
        sources, aimed = [model.item_src_embedding.weight], (target.user_mask, None)
        users = Propagation(model, lambda: self.rows(model), sources, [target.item_mask], aimed)
        return solve(users, [target.user_emb])


@adapts("NAIS")
class NAISHistory(FeatureAdapter):
    """NAIS: its attention depends on the item scored, so the user is the plain mean instead."""

    student = "mean of `item_src_embedding` over the history, `item_dst_embedding`"
    capacity = ("embedding_size",)
    note = "as student: the attention is trained by the base loss only"
    pairs_by = "forward"
    reads_histories = True
    warm = "its attention depends on the item scored, so its scores are no products"

    def exact(self, model: Any) -> bool:
        return False

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows(
            lambda ids: _sum_of_history(model, ids, "mean"),
            lambda ids: model.item_dst_embedding.weight.index_select(0, ids),
        )


@adapts("SimpleX")
class SimpleXHistory(FeatureAdapter):
    """SimpleX: cosine of the user mixed with the history, and the item."""

    student = "user mixed with the history, item; both normalised"
    capacity = ("embedding_size",)
    warm = TABLES
    warm_spare = 1

    def rows(self, model: Any) -> FeatureRows:
        def user(ids: torch.Tensor) -> torch.Tensor:
            history = model.item_emb(model.history_item_id[ids])
            mixed = model.get_UI_aggregation(
                model.user_emb(ids), history, model.history_item_len[ids]
            )
            return F.normalize(mixed, dim=1)

        return FeatureRows(user, lambda ids: F.normalize(model.item_emb(ids), dim=1))

    def warm_by(self, model: Any) -> str:
        if model.aggregator == "user_attention":
            return "the attention of aggregator: user_attention mixes the user in once more"
        return (
            self.warm if model.gamma > 0 else "with gamma: 0 its users have no weights of their own"
        )

    def start(self, model: Any, target: Target) -> int:
        """Cosines that rank as the products do, by one column more.

        Items (v, √(m² - ‖v‖²)), m the largest norm, and users (u, 0): all items are of one length,
        so the cosine is u·v / (m ‖u‖). Where the target has that column already, none is added.

        Source: Bachrach et al., "Speeding Up the Xbox Recommender System Using a Euclidean
            Transformation for Inner-Product Spaces", RecSys 2014.
        """
        items = with_rows(model.item_emb.weight, target.item_emb, target.item_mask)
        goal = with_rows(model.user_emb.weight, target.user_emb, target.user_mask)
        if target.item_emb.shape[1] < items.shape[1]:
            squares = items[:, :-1].square().sum(dim=1)
            most = squares[target.item_mask].max()
            items[:, -1] = (most - squares).clamp(min=0).sqrt()
            goal[:, -1] = 0
        fill_rows(model.item_emb.weight, F.normalize(items, dim=1), target.item_mask)
        there = target.user_mask & (goal != 0).any(dim=1)
        goal, table = F.normalize(goal, dim=1), model.user_emb.weight
        for ids in user_blocks(model.n_users, model.n_items, model.device):
            history = model.item_emb(model.history_item_id[ids])
            nobody = torch.zeros_like(goal[ids])
            mixed_in = model.get_UI_aggregation(nobody, history, model.history_item_len[ids])
            goal[ids] = (goal[ids] - mixed_in) / model.gamma
        fill_rows(table, goal, there)
        return 0


@adapts("DMF")
class DMFTowers(FeatureAdapter):
    """DMF: the outputs of its two towers, which read the interactions of a user, or of an item."""

    student = "outputs of the user tower and the item tower"
    capacity = ("user_hidden_size_list", "item_hidden_size_list")
    caches = ("i_embedding",)
    warm = "its features are what two towers make of the interactions, not rows of tables"
    note = "the last widths of both towers must be equal"

    def rows(self, model: Any) -> FeatureRows:
        def item(ids: torch.Tensor) -> torch.Tensor:
            read = F.embedding_bag(
                model.history_user_id[ids],
                model.item_linear.weight.t(),
                mode="sum",
                per_sample_weights=model.history_user_value[ids],
            )
            return model.item_fc_layers(read)

        return FeatureRows(lambda ids: model.user_fc_layers(model.get_user_embedding(ids)), item)
