"""Models that make a user (or an item) of the interactions in the training data."""

import torch
from torch import nn
from torch.nn import functional as F

from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import Biases, FeatureAdapter, adapts


def _sum_of_history(model: nn.Module, users: torch.Tensor, mode: str = "sum") -> torch.Tensor:
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

    def rows(self, model: nn.Module) -> FeatureRows:
        def user(ids: torch.Tensor) -> torch.Tensor:
            lengths = model.history_lens[ids].clamp(min=1).unsqueeze(1).float()
            return _sum_of_history(model, ids) * lengths.pow(-model.alpha)

        return FeatureRows(user, lambda ids: model.item_dst_embedding.weight.index_select(0, ids))

    def biases(self, model: nn.Module) -> Biases:
        return model.user_bias, model.item_bias


@adapts("NAIS")
class NAISHistory(FeatureAdapter):
    """NAIS: its attention depends on the item scored, so the user is the plain mean instead."""

    student = "mean of `item_src_embedding` over the history, `item_dst_embedding`"
    capacity = ("embedding_size",)
    note = "as student: the attention is trained by the base loss only"
    pairs_by = "forward"

    def exact(self, model: nn.Module) -> bool:
        return False

    def rows(self, model: nn.Module) -> FeatureRows:
        return FeatureRows(
            lambda ids: _sum_of_history(model, ids, "mean"),
            lambda ids: model.item_dst_embedding.weight.index_select(0, ids),
        )


@adapts("SimpleX")
class SimpleXHistory(FeatureAdapter):
    """SimpleX: cosine of the user mixed with the history, and the item."""

    student = "user mixed with the history, item; both normalised"
    capacity = ("embedding_size",)

    def rows(self, model: nn.Module) -> FeatureRows:
        def user(ids: torch.Tensor) -> torch.Tensor:
            history = model.item_emb(model.history_item_id[ids])
            mixed = model.get_UI_aggregation(
                model.user_emb(ids), history, model.history_item_len[ids]
            )
            return F.normalize(mixed, dim=1)

        return FeatureRows(user, lambda ids: F.normalize(model.item_emb(ids), dim=1))


@adapts("DMF")
class DMFTowers(FeatureAdapter):
    """DMF: the outputs of its two towers, which read the interactions of a user, or of an item."""

    student = "outputs of the user tower and the item tower"
    capacity = ("user_hidden_size_list", "item_hidden_size_list")
    caches = ("i_embedding",)
    note = "the last widths of both towers must be equal"

    def rows(self, model: nn.Module) -> FeatureRows:
        def item(ids: torch.Tensor) -> torch.Tensor:
            read = F.embedding_bag(
                model.history_user_id[ids],
                model.item_linear.weight.t(),
                mode="sum",
                per_sample_weights=model.history_user_value[ids],
            )
            return model.item_fc_layers(read)

        return FeatureRows(lambda ids: model.user_fc_layers(model.get_user_embedding(ids)), item)
