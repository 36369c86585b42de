"""What the teachers that need no training have in common."""

from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType, ModelType

from recbole_freqd.config.models import own_model_options
from recbole_freqd.features.data import training_matrix
from recbole_freqd.features.products import SummedRanker, SummedScores


class TrainingFree(GeneralRecommender):
    """A model of RecBole's traditional kind whose scores are a sum of products of factors.

    Its matrices stay on the CPU, whatever the device.

    Args:
        config: A RecBole Config. Keys that it lacks are those of ``properties/model/``.
        dataset: The RecBole dataset of the training data.

    Attributes:
        user_items: (n_users, n_items) float32, ones where there is a training interaction (label 0
            is none); row and column 0, the padding, are empty.
        options: The model's own keys.

    Raises:
        ConfigError: A value that is not allowed, or no training interaction.
    """

    input_type = InputType.POINTWISE
    type = ModelType.TRADITIONAL

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.options = own_model_options(type(self).__name__, config)
        self.user_items = sp.csr_array(training_matrix(dataset).astype(np.float32))
        self.dummy_param = torch.nn.Parameter(torch.zeros(1))  # an optimizer needs one
        # A list that is changed in place: what is read undisturbed gets its attributes back.
        self._scores: list[Any] = []

    def scores(self) -> SummedScores:
        """The score matrix of the weights that there are now; the padding scores 0."""
        state = self._state()
        if not self._scores or self._scores[0] != state:
            self._scores[:] = [state, self._make_scores()]
        return self._scores[1]

    def _make_scores(self) -> SummedScores:
        raise NotImplementedError

    def _state(self) -> Any:
        """What changes whenever the scores have to be made again."""
        return None

    def ranker(self) -> SummedRanker:
        """What ranks by these scores."""
        return SummedRanker(self.scores(), self.device)

    def forward(self) -> None:
        """Nothing: there is no pass to differentiate."""

    def calculate_loss(self, interaction: Any) -> Optional[torch.Tensor]:
        """0, with a gradient of 0, so that an optimizer has something to do nothing with."""
        return self.dummy_param.sum() * 0.0

    def predict(self, interaction: Any) -> torch.Tensor:
        """(b,), the scores of pairs of users (b,) and items (b,)."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        return self.ranker().at(users, items[:, None])[:, 0]

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """(b * n_items,), the scores of users (b,) for all items."""
        return self.ranker().block(interaction[self.USER_ID]).view(-1)
