"""What is taught by a team, or by scaled or filtered scores."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import torch
from torch import nn

from recbole_freqd.core.files import fingerprint
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.features.data import Known
from recbole_freqd.runtime.processes import as_in_one_process
from recbole_freqd.teacher.base import MemberTeacher, Teacher, own_model

logger = logging.getLogger(__name__)


@dataclass
class Taught(Teacher):
    """Weighted teachers and the scores that are taught. A team of one is that teacher.

    As a :class:`Teacher` it is evaluated unfiltered: its ``model`` is the only teacher's own, or
    ranks by the team's scores.

    Attributes:
        team: All teachers, in the order of their names; those of weight 0 teach nothing.
        filtered: Side and α of the filter; None: there is none.
        factor: What the scores were multiplied by.
        knows: Masks (n_users,) and (n_items,) of what some teacher knows; None: everything.
        plain, scores: The scores before the filter and after it.
    """

    team: tuple[MemberTeacher, ...] = ()
    filtered: Optional[tuple[str, float]] = None
    factor: float = 1.0
    knows: Optional[Known] = None
    plain: Any = None
    scores: Any = None

    @property
    def members(self) -> tuple[MemberTeacher, ...]:
        return self.team

    @property
    def teaching(self) -> list[MemberTeacher]:
        """The members that have a weight."""
        return [member for member in self.team if member.weight > 0]

    @property
    def known(self) -> Optional[Known]:
        return self.knows

    def model(self, dataset: Any) -> nn.Module:
        present = self.teaching
        if len(present) == 1:
            return present[0].teacher.model(dataset)
        models = [own_model(member.teacher.model(dataset)) for member in present]
        return RankedBy(self.plain, self.config, models)

    def weights(self) -> str:
        """A hash of what is taught: the teachers' weights, in both senses, and the filter."""
        parts = [(member.name, member.weight, member.teacher.weights()) for member in self.teaching]
        return fingerprint(parts, self.filtered, self.factor)

    def depends_on(self) -> tuple[np.ndarray, ...]:
        """What the features are made of; they themselves may not be made yet."""
        return (np.array([self.weights()]),)

    def ranker(self, dataset: Any) -> Ranker:
        """The scores that are taught."""
        return self.scores

    def trajectory_rankers(self, dataset: Any) -> list[Callable[[], Ranker]]:
        """Those of the one teacher that has kept its earlier selves, and weighs most."""
        kept = [member for member in self.teaching if member.teacher.trajectory]
        if not kept:
            return []
        chosen = max(kept, key=lambda member: member.weight)
        if len(self.teaching) > 1:
            logger.info("The trajectory of the team is that of %s.", chosen.name)
        return chosen.teacher.trajectory_rankers(dataset)


class RankedBy(nn.Module):
    """What RecBole evaluates where there are scores and no model.

    Args:
        ranker: The scores.
        config: A RecBole Config, for the names of fields.
        models: What the scores are made of; no part of this module.
    """

    def __init__(self, ranker: Ranker, config: Any, models: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self._models = tuple(models)
        self.scores, self.device = ranker, ranker.device
        self.n_users, self.n_items = ranker.shape
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.dummy_param = nn.Parameter(torch.zeros(1))  # an optimizer needs one

    @property
    def models(self) -> tuple[nn.Module, ...]:
        """What the scores are made of."""
        return self._models

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """(b * n_items,), the scores of users (b,) for all items."""
        return self.scores.block(interaction[self.USER_ID].to(self.device)).view(-1)

    def predict(self, interaction: Any) -> torch.Tensor:
        """(b,), the scores of pairs of users (b,) and items (b,)."""
        users, items = (interaction[name].to(self.device) for name in (self.USER_ID, self.ITEM_ID))
        return self.scores.at(users, items[:, None])[:, 0]


def team_config(config: Any, name: str = "Team") -> Any:
    """A Config that a team is evaluated with: the student's world, and no model of RecBole's."""
    made = copy.copy(as_in_one_process(config))
    changed = {"model": name, "trainer": None, "log_wandb": False}
    made.final_config_dict = {**made.final_config_dict, **changed}
    return made
