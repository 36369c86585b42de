"""Graph models: the features are the propagated embeddings, of all users and items at once."""

from typing import Any

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import FeatureAdapter, adapts
from recbole_freqd.features.warm import PROPAGATED


@adapts("LightGCN")
class PropagatedEmbeddings(FeatureAdapter):
    """Reads what ``forward()`` returns, the propagated users and items: LightGCN."""

    student = "propagated embeddings, those the loss is computed from"
    capacity: tuple[str, ...] = ("embedding_size",)
    shared_forward = "forward"
    warm = PROPAGATED

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows.of_tables(*model.forward()[:2])


@adapts("DGCF")
class DGCFEmbeddings(PropagatedEmbeddings):
    """DGCF: the same, over graphs that it makes of the embeddings themselves."""

    warm = "its graphs follow from its embeddings, so its features are not linear in them"


@adapts("NGCF")
class NGCFEmbeddings(PropagatedEmbeddings):
    """NGCF: its layers side by side."""

    warm = "its layers pass a LeakyReLU and are normalised, so its features are not linear"

    capacity = ("embedding_size", "hidden_size_list")
    note = "features are the layers side by side"


@adapts("SpectralCF")
class SpectralCFEmbeddings(PropagatedEmbeddings):
    """SpectralCF: its layers side by side."""

    warm = "its layers are sigmoids, so its features are not linear in its tables"

    capacity = ("embedding_size", "n_layers")
    note = "features are the layers side by side"


@adapts("SGL")
class SGLEmbeddings(PropagatedEmbeddings):
    """SGL: ``forward`` wants a graph; the loss calls it for the whole one first."""

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows.of_tables(*model.forward(model.train_graph))

    def rows_from_calls(self, model: Any, results: list[Any]) -> FeatureRows:
        return FeatureRows.of_tables(*results[0])


@adapts("NCL")
class NCLEmbeddings(PropagatedEmbeddings):
    """NCL: ``forward`` returns its layers too."""

    extra = ("faiss", "ncl")
    note = "needs faiss; `num_clusters` at most the number of users and of items"

    def check(self, model: Any) -> None:
        most = min(model.n_users, model.n_items)
        if model.k > most:
            raise ConfigError(
                f"num_clusters: got {model.k}; allowed for NCL on this data: at most {most}, the "
                "smaller number of users and items. Set num_clusters (teacher.num_clusters)."
            )


@adapts("GCMC")
class GCMCEmbeddings(PropagatedEmbeddings):
    """GCMC: Σ_b w_b u Q_b v of its encoder's u and v, so Σ_b w_b Q_b goes to the users."""

    student = "encoder output (users times the decoder's matrix)"
    warm = "its features are what an encoder with a ReLU makes of the graph"
    shared_forward = "GcEncoder"

    def rows(self, model: Any) -> FeatureRows:
        encoded = model.GcEncoder(model.user_features, model.item_features)
        return self.rows_from_calls(model, [encoded])

    def rows_from_calls(self, model: Any, results: list[Any]) -> FeatureRows:
        user_emb, item_emb = results[-1]
        decoder = model.BiDecoder
        of_liked = decoder.dense_layer.weight[1]  # the class that the score is the logit of
        matrix = sum(weight * basis for weight, basis in zip(of_liked, decoder.weights))
        return FeatureRows(
            lambda ids: user_emb.index_select(0, ids) @ matrix,
            lambda ids: item_emb.index_select(0, ids),
        )
