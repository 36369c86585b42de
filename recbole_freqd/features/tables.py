"""Models whose features are rows of embedding tables."""

from typing import Any

import torch
from torch import nn

from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import Biases, FeatureAdapter, adapts
from recbole_freqd.features.warm import TABLES, Target, fill_rows


@adapts("BPR")
class EmbeddingTables(FeatureAdapter):
    """Reads ``user_embedding`` and ``item_embedding``: BPR."""

    student = "`user_embedding`, `item_embedding`"
    capacity: tuple[str, ...] = ("embedding_size",)
    warm = TABLES

    def rows(self, model: Any) -> FeatureRows:
        tables = model.user_embedding.weight, model.item_embedding.weight
        return FeatureRows.of_tables(*tables, in_place=True)


@adapts("LINE")
class LINETables(EmbeddingTables):
    """LINE: the same; its context tables are in no score."""

    note = "context embeddings are trained by the base loss only"


@adapts("ENMF")
class ENMFTables(EmbeddingTables):
    """ENMF: the score is Σ_d h_d u_d v_d, so h goes to the users."""

    student = "`user_embedding` · `H_i`, `item_embedding`"

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows(
            lambda ids: model.user_embedding.weight.index_select(0, ids) * model.H_i.weight,
            lambda ids: model.item_embedding.weight.index_select(0, ids),
        )

    def start(self, model: Any, target: Target) -> int:
        with torch.no_grad():
            model.H_i.weight.fill_(1)  # dividing by an h near 0 would make rows of any size
        return super().start(model, target)


class InputTables(EmbeddingTables):
    """Tables that a network turns into the score: a representation, not factors of the score."""

    warm = "its tables go through a network before they are a score"

    def exact(self, model: Any) -> bool:
        return False


@adapts("ConvNCF")
class ConvNCFTables(InputTables):
    """ConvNCF: the two tables that its outer product is made of."""

    capacity = ("embedding_size", "cnn_strides")
    note = "`embedding_size` is the product of `cnn_strides`"


@adapts("NNCF")
class NNCFTables(InputTables):
    """NNCF: the two tables beside its neighbourhood convolutions."""

    capacity = ("ui_embedding_size",)
    pairs_by = "forward"
    reads_histories = True
    note = "neighbourhood embeddings are trained by the base loss only"


@adapts("NeuMF")
class NeuMFTables(FeatureAdapter):
    """NeuMF: both tables of each side; without its MLP (``mlp_train: False``) it is a product."""

    student = "`*_mf_embedding` beside `*_mlp_embedding`"
    capacity = ("mf_embedding_size", "mlp_embedding_size")
    note = "exact where `mlp_train: False`"
    pairs_by = "forward"
    warm = f"{InputTables.warm}; with mlp_train: False they do not"

    def exact(self, model: Any) -> bool:
        return not model.mlp_train

    def warm_by(self, model: Any) -> str:
        return TABLES if self.exact(model) else self.warm

    def start(self, model: Any, target: Target) -> int:
        with torch.no_grad():
            model.predict_layer.weight.fill_(1)
            model.predict_layer.bias.zero_()
        fill_rows(model.user_mf_embedding.weight, target.user_emb, target.user_mask)
        fill_rows(model.item_mf_embedding.weight, target.item_emb, target.item_mask)
        return 0

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows(
            lambda ids: self._side(model, model.user_mf_embedding, model.user_mlp_embedding, ids),
            lambda ids: self._side(model, model.item_mf_embedding, model.item_mlp_embedding, ids),
        )

    def _side(
        self, model: Any, mf: nn.Embedding, mlp: nn.Embedding, ids: torch.Tensor
    ) -> torch.Tensor:
        parts = [mf(ids)] if model.mf_train else []
        if model.mlp_train:
            parts.append(mlp(ids))
        elif mf is model.user_mf_embedding:
            parts[0] = parts[0] * model.predict_layer.weight
        return torch.cat(parts, dim=1)

    def biases(self, model: Any) -> Biases:
        return None, model.predict_layer.bias.expand(model.n_items)
