"""Makes what is taught: teachers weighed, summed, scaled and filtered, before any training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.names import teaching_keys
from recbole_freqd.config.teaching import AUTO, FROM_TEACHER, NONE, WARM_START
from recbole_freqd.core.errors import ConfigError, join_names
from recbole_freqd.core.later import LaterFeatures
from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rows import Features, is_mapped
from recbole_freqd.core.schema import method_keys
from recbole_freqd.features import adapter_of, extract_features
from recbole_freqd.features.check import are_exact
from recbole_freqd.features.data import Known, keep_known
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime.seconds import counted_as_choice
from recbole_freqd.teacher.base import MemberTeacher, Teacher, make_features_once, own_model
from recbole_freqd.teacher.choice.choose import choose_filter, choose_weights
from recbole_freqd.teacher.choice.chooser import Chooser
from recbole_freqd.teacher.files.files import FilesTeacher
from recbole_freqd.teacher.filter import filter_features, filter_mixture, filtered_ranker
from recbole_freqd.teacher.recipe import is_closed_form
from recbole_freqd.teacher.taught import Taught, team_config
from recbole_freqd.teacher.team.member import StandardisedRanker, TeamMember
from recbole_freqd.teacher.team.rescaling import (
    MaskedRanker,
    ScaledRanker,
    rescaled,
    scale_features,
)
from recbole_freqd.teacher.team.team import TeamRanker
from recbole_freqd.teacher.team.team_features import team_features

# Each user's mean is taken away before the filter, of one teacher and of a team alike. On
# validation it made no difference on CiteULike and was slightly better on ml-100k; gowalla was
# not measured.
_CENTRE = True
_NOT_CHOSEN = {WARM_START, "index_items", "index_nprobe"}  # validation data decides without them


def teach(chooser: Chooser, teachers: Sequence[Teacher], places: Sequence[int]) -> Teacher:
    """Makes what these teachers teach a student.

    Args:
        chooser: Of the student.
        teachers: At least one.
        places: Of each, the entry of ``teacher`` that it stands for: those of a panel share one.

    Returns:
        A single teacher as it is where nothing is to be done to it.

    Raises:
        ConfigError: The same teacher twice; ``auto`` that the user wrote, without validation data.
        TeacherError: Scores that are NaN or infinite.
    """
    config = chooser.config
    if len(teachers) > 1 or _is_filtered(config) or _is_scaled(config, teachers[0]):
        return _Lesson(chooser, teachers, places).taught()
    return teachers[0]


def _is_filtered(config: Any) -> bool:
    return config["teacher_filter"] not in (NONE, 0)


def _is_scaled(config: Any, teacher: Teacher) -> bool:
    """Whether a single teacher's scores are given a spread."""
    wanted = any(LOSSES.get(name).scales_teacher for name in trainer_names(config["trainer"]))
    return (wanted or config[WARM_START] in FROM_TEACHER) and not _is_by_gradient(teacher)


def _is_by_gradient(teacher: Teacher) -> bool:
    """Whether its scores have the scale of a trained model; files may have any scale."""
    return not isinstance(teacher, FilesTeacher) and not is_closed_form(teacher.config)


@dataclass(frozen=True)
class _Plain:
    """What is taught before it is filtered.

    Attributes:
        ranker: The scores.
        known: Masks of what some teacher knows; None: everything.
        factor: What the scores were multiplied by.
        products: Makes features whose dot products are the scores, or stand for them.
        features: Makes the features that are taught.
    """

    ranker: Ranker
    known: Optional[Known]
    factor: float
    products: Callable[[], Features]
    features: Callable[[], Features]


class _Lesson:
    """Teachers of a student, ordered by name."""

    def __init__(
        self, chooser: Chooser, teachers: Sequence[Teacher], places: Sequence[int]
    ) -> None:
        self.chooser, self.config = chooser, chooser.config
        names = _names_of(teachers)
        order = sorted(range(len(names)), key=names.__getitem__)
        self.names = [names[place] for place in order]
        self.teachers = [teachers[place] for place in order]
        self.places = [places[place] for place in order]
        self.rankers = [
            StandardisedRanker(team_member(name, teacher, chooser.dataset), chooser.user_items)
            for name, teacher in zip(self.names, self.teachers)
        ]

    def taught(self) -> Taught:
        """Chooses, or takes what was chosen before, and makes it."""
        chosen = self.chooser.choose_once("taught", self._identity(), self._choose)
        weights, filtered = chosen["weights"], chosen["filter"]
        plain = self._plain(weights, chosen["factor"])
        present = [teacher for teacher, weight in zip(self.teachers, weights) if weight > 0]
        first, is_alone = present[0], len(present) == 1
        return Taught(
            config=first.config if is_alone else team_config(self.config),
            checkpoint=" + ".join(teacher.checkpoint for teacher in present),
            features=make_features_once(
                self.config,
                {},
                lambda: self._filtered_features(plain, filtered),
                later=any(isinstance(teacher.features, LaterFeatures) for teacher in present),
            ),
            origin=first.origin if is_alone else "team",
            facts=first.facts if is_alone else {},
            other_data=first.other_data if is_alone else None,
            team=tuple(map(MemberTeacher, self.names, self.teachers, weights)),
            filtered=filtered and (filtered[0], filtered[1]),
            factor=plain.factor,
            knows=plain.known,
            plain=plain.ranker,
            scores=self._filtered(plain, filtered),
        )

    def _identity(self) -> dict[str, Any]:
        """What the choice depends on, beside the data."""
        hashes = [teacher.weights() for teacher in self.teachers]
        return {
            "teachers": list(zip(self.names, hashes, self.places)),
            "scaled": [_is_scaled(self.config, teacher) for teacher in self.teachers],
            "keys": {key: self.config[key] for key in teaching_keys() if key not in _NOT_CHOSEN},
            "max_pairs": _max_pairs(self.config),
        }

    def _choose(self) -> dict[str, Any]:
        """Weights, factor, and side and α of the filter, in the first process."""
        weights = self._weights()
        plain = self._plain(weights, None)
        return {
            "weights": weights,
            "factor": plain.factor,
            "filter": self._side_and_alpha(plain) if _is_filtered(self.config) else None,
        }

    # --- weights ----------------------------------------------------------------------------------

    def _weights(self) -> list[float]:
        """One each, their sum 1."""
        given, places = self.config["teacher_weights"], np.array(self.places)
        if given == AUTO or len(places) == 1:
            return self._best_weights(range(len(places)))
        weights = np.zeros(len(places))
        for entry, weight in enumerate(given):
            own = np.flatnonzero(places == entry)
            if weight > 0:
                weights[own] = weight / sum(given) * np.array(self._best_weights(own.tolist()))
        return weights.tolist()

    def _best_weights(self, places: Sequence[int]) -> list[float]:
        if len(places) == 1:
            return [1.0]
        if not self.chooser.may_be("teacher_weights", "the same for all"):
            return [1 / len(places)] * len(places)
        rankers = [self.rankers[place] for place in places]
        with counted_as_choice():
            choice = choose_weights(rankers, self.chooser.sample(), exclude=self.chooser.user_items)
        return [float(choice.value[ranker.member.name]) for ranker in rankers]

    # --- the scores -------------------------------------------------------------------------------

    def _plain(self, weights: list[float], factor: Optional[float]) -> _Plain:
        """The scores of these weights; their factor is measured where it is None."""
        present = [place for place, weight in enumerate(weights) if weight > 0]
        known = _union([self.teachers[place].known for place in present])
        if len(present) == 1:
            return self._single(present[0], factor, known)
        ranker = TeamRanker(
            self.rankers,
            weights,
            exclude=self.chooser.user_items,
            closed_form_spread=self.config["teacher_spread"],
            factor=factor,
            most_users=self.config["teacher_users"],
            progress=bool(self.config["show_progress"]),
        )

        def features() -> Features:
            return team_features(self.rankers, weights, factor=ranker.factor)

        return _Plain(ranker, known, ranker.factor, features, features)

    def _single(self, place: int, factor: Optional[float], known: Optional[Known]) -> _Plain:
        teacher, member = self.teachers[place], self.rankers[place].member
        ranker = member.ranker
        if factor is None:
            factor = 1.0
            if _is_scaled(self.config, teacher):
                found = rescaled(
                    member,
                    self.config["teacher_spread"],
                    exclude=self.chooser.user_items,
                    most_users=self.config["teacher_users"],
                )
                factor = found.factor if isinstance(found, ScaledRanker) else 1.0
        if factor != 1:
            ranker = ScaledRanker(ranker, factor)
        return _Plain(
            ranker,
            known,
            factor,
            lambda: scale_features(member.features, factor),  # type: ignore[arg-type]
            lambda: scale_features(teacher.features, factor),
        )

    # --- the filter -------------------------------------------------------------------------------

    def _side_and_alpha(self, plain: _Plain) -> Optional[list[Any]]:
        """As the keys have it, or chosen on validation; None: no filter is better."""
        alpha, side = self.config["teacher_filter"], self.config["teacher_filter_side"]
        if alpha == AUTO and not self.chooser.may_be("teacher_filter", "none"):
            return None
        if (
            alpha != AUTO
            and side == AUTO
            and not self.chooser.may_be("teacher_filter_side", "item")
        ):
            side = "item"
        if alpha != AUTO and side != AUTO:
            return [side, alpha]
        with counted_as_choice():
            mixtures = {
                one: filter_mixture(plain.ranker, centre=_CENTRE, **self._graph(plain, one))
                for one in (self._sides(plain) if side == AUTO else (side,))
            }
            settings: dict[str, Any] = {} if alpha == AUTO else {"alphas": (alpha,), "plain": False}
            choice = choose_filter(plain.ranker, mixtures, self.chooser.sample(), **settings)
        return None if choice.value is None else list(choice.value)

    def _sides(self, plain: _Plain) -> tuple[str, ...]:
        """Those that ``auto`` tries: the users' one only where scores are products.

        Other scores can be filtered there through features of their spectral rank only, which rank
        differently: no such form was best for any team on three data sets.
        """
        return ("item",) if plain.ranker.factors() is None else SIDES[::-1]

    def _filtered(self, plain: _Plain, filtered: Optional[list[Any]]) -> Ranker:
        if filtered is None:
            return plain.ranker
        side, alpha = filtered
        return filtered_ranker(
            plain.ranker, alpha=alpha, centre=_CENTRE, **self._graph(plain, side)
        )

    def _filtered_features(self, plain: _Plain, filtered: Optional[list[Any]]) -> Features:
        features = plain.features()
        if filtered is None:
            return features
        side, alpha = filtered
        settings = self._graph(plain, side)
        del settings["features"]
        return filter_features(features, alpha=alpha, centre=_CENTRE, **settings)

    def _graph(self, plain: _Plain, side: str) -> dict[str, Any]:
        """What a filter of a side needs."""
        config, is_product = self.config, plain.ranker.factors() is not None
        graph = cosine_graph(
            keep_known(self.chooser.user_items, plain.known),
            side=side,
            k=config["teacher_filter_k"],
            shrinkage=config["teacher_filter_shrinkage"],
            max_pairs=_max_pairs(config),
        )
        features = None if side == "item" or is_product else plain.products()
        return {"graph": graph, "side": side, "features": features, "known": plain.known}


def _union(masks: Sequence[Optional[Known]]) -> Optional[Known]:
    given = [mask for mask in masks if mask is not None]
    if len(given) < len(masks):
        return None
    user, item = (np.logical_or.reduce(side) for side in zip(*given))
    return None if user[1:].all() and item[1:].all() else (user, item)


def _max_pairs(config: Any) -> int:
    """The budget of co-occurrences of a graph, for any trainer."""
    given = config["freqd_max_pairs"]
    return method_keys("FreqD")["freqd_max_pairs"].default if given is None else given


def _names_of(teachers: Sequence[Teacher]) -> list[str]:
    """A name for each, which does not depend on their order: that of the model, and a hash.

    Raises:
        ConfigError: The same teacher is there twice.
    """
    models = [str(teacher.config["model"]) for teacher in teachers]
    names = [
        f"{model} {teacher.weights()[:6]}" if models.count(model) > 1 else model
        for model, teacher in zip(models, teachers)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"teacher: {join_names(twice)} is there twice, with the same weights. Remove one, and "
            "raise its teacher_weights instead."
        )
    return names


def team_member(name: str, teacher: Teacher, dataset: Any) -> TeamMember:
    """A teacher as a member of a team: by features, biases included, where its scores are those.

    Args:
        name: Of the member.
        teacher: The teacher.
        dataset: The student's training data.
    """
    trained, other = _is_by_gradient(teacher), teacher.other_data
    if other is not None:
        model = own_model(teacher.model(dataset))
        if are_exact(model, adapter_of(model)):
            mapped = any(map(is_mapped, teacher.features))
            features = other.alignment.remapped(
                extract_features(model, with_bias=True, mapped=mapped), mapped=mapped
            )
            knows_item = np.arange(len(features[1])) > 0
            if teacher.known is not None:
                knows_item &= teacher.known[1]
            items = torch.from_numpy(knows_item).to(features[1].device)
            masked = MaskedRanker(features, items)
            return TeamMember(name, masked, features, teacher.known, trained, True)
    ranker = teacher.ranker(dataset)
    factors = ranker.factors()
    features = teacher.features if factors is None else factors
    return TeamMember(name, ranker, features, teacher.known, trained, factors is not None)
