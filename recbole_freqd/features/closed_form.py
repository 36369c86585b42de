"""Models that are computed in one pass: teachers, never students."""

from typing import Any, Optional

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import FeatureAdapter, adapts
from recbole_freqd.features.low_rank import FactoredScores, Scores


@adapts("NCEPLRec")
class NCEPLRecFactors(FeatureAdapter):
    """NCEPLRec: its two factors."""

    closed_form = True  # RecBole calls it a general model; the others are "traditional" ones
    learned = ("user_embeddings", "item_embeddings")

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows.of_tables(model.user_embeddings.float(), model.item_embeddings.T.float())


class OnlyScores(FeatureAdapter):
    """Knows only the scores of a model, or their factors if they are a product."""

    pairs_by = "rows"  # RecBole's predict loops over pairs, or makes a row for each

    def exact(self, model: Any) -> bool:
        return False

    def scores(self, model: Any, progress: bool) -> Scores:
        factors = self.factors(model)
        return FactoredScores(factors) if factors else super().scores(model, progress)

    def factors(self, model: Any) -> Optional[list[Any]]:
        """Matrices whose product is the score matrix, or None."""
        return None


@adapts("Pop")
class PopularityScores(OnlyScores):
    """Pop: the same scores for every user, so features of one dimension."""

    learned = ("item_cnt",)
    note = "one dimension: needs `freqd_distance: squared`"


@adapts("Random")
class RandomScores(OnlyScores):
    """Random: one draw, the same for every user, stands for all it would draw."""

    note = "one dimension: needs `freqd_distance: squared`; there is nothing to learn from it"


@adapts("EASE", "SLIMElastic")
class ItemWeights(OnlyScores):
    """EASE, SLIMElastic: interactions times item-to-item weights."""

    learned = ("item_similarity",)
    reads_histories = True

    def factors(self, model: Any) -> Optional[list[Any]]:
        return [model.interaction_matrix, model.item_similarity]


@adapts("ADMMSLIM")
class ADMMSLIMWeights(ItemWeights):
    """ADMMSLIM: as SLIM, unless it centres the columns."""

    def factors(self, model: Any) -> Optional[list[Any]]:
        return None if model.center_columns else super().factors(model)


@adapts("ItemKNN")
class Neighbours(OnlyScores):
    """ItemKNN: interactions times similarities, of items or of users."""

    learned = ("w",)
    reads_histories = True

    def factors(self, model: Any) -> Optional[list[Any]]:
        pair = [model.interaction_matrix, model.w]
        return pair[::-1] if model.method == "user" else pair


@adapts("AsymKNN")
class NormalisedNeighbours(OnlyScores):
    """AsymKNN: normalised and raised to a power; the sparse score matrix that it keeps itself."""

    learned = ("w",)  # pred_mat is made of it and the interactions
    reads_histories = True

    def factors(self, model: Any) -> Optional[list[Any]]:
        return [model.pred_mat]


@adapts("ShrunkKNN")
class SparseFactors(OnlyScores):
    """Our own ShrunkKNN: a product of sparse factors."""

    pairs_by = "predict"
    learned = ("neighbours",)
    reads_histories = True
    note = "of this package"

    def scores(self, model: Any, progress: bool) -> Scores:
        return model.scores()

    def ranker(self, model: Any) -> Ranker:
        return model.ranker()


@adapts("GFCF")
class SummedFactors(SparseFactors):
    """Our own GFCF: a sum of products, one sparse and one of low rank."""

    learned = ("item_basis",)
