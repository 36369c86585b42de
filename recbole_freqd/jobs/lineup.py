"""Lists the students of a table: the one asked for, and the baselines that it has to beat."""

import copy
from dataclasses import dataclass
from typing import Any, Optional

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.make import alone_config, config_with
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import PANEL
from recbole_freqd.config.teaching import WARM_KEYS
from recbole_freqd.features import registered_adapter
from recbole_freqd.features.warm import PROPAGATED, TABLES
from recbole_freqd.jobs.fairness import config_of
from recbole_freqd.jobs.validation import missing_parts

WARM = "FreqRank"
"""The trainer that reads :data:`WARM_KEYS`."""


@dataclass(frozen=True)
class Entry:
    """A student to run.

    Attributes:
        role, label: Of its row.
        config: Its Config.
        shows_teacher: Whether its teacher gets rows, too.
        untrained: Whether it keeps its initial weights.
    """

    role: str
    label: str
    config: Any
    shows_teacher: bool = False
    untrained: bool = False


def asked_for(config: Any) -> Entry:
    """The student that the user's config describes."""
    names = trainer_names(config["trainer"])
    return Entry("distilled", "+".join(names), config, True) if names else alone(config)


def alone(config: Any) -> Entry:
    """The student without any teacher."""
    return Entry("student_alone", "student alone", alone_config(config))


def baselines(config: Any) -> list[Entry]:
    """The student alone, cold and warm, and its teacher cut to size."""
    whole = "team" if _is_team(config) else "teacher"
    warm = config_with(config, [WARM], **WARM_KEYS)
    return [
        alone(config),
        Entry("cut", f"{whole} cut to size", warm, untrained=True),
        Entry("student_warm", "student alone, warm", config_with(config, [WARM], **WARM_KEYS)),
    ]


def why_not_warm(model_class: type) -> Optional[str]:
    """Says why a model's students cannot start warm, as far as known before one is made."""
    adapter = registered_adapter(model_class)
    return None if adapter is None or adapter.warm in (TABLES, PROPAGATED) else adapter.warm


def warm_config(base: Any, seed: int, keys: dict[str, Any], frozen: dict[str, Any]) -> Any:
    """The Config of the warm-started student alone, in a comparison.

    Args:
        base: A Config with the keys of all methods and the teacher.
        seed: Of the run.
        keys: The keys chosen for it.
        frozen: The chosen keys, by what they configure; only the teacher's are read.
    """
    return config_of(base, [WARM], seed, {**keys, **WARM_KEYS}, frozen)


def offered(config: Any) -> list[Entry]:
    """Offers more students beside the default trainer: FreqRank by the same teacher, and by a team.

    The team is the teacher and the panel. There is no team if the config lists teachers already,
    or if no validation data exist to choose weights on.
    """
    entries = [Entry("distilled", "FreqRank", config_with(config, ["FreqRank"]))]
    can_weigh = config["eval_step"] > 0 and "valid" not in missing_parts(config)
    if can_weigh and not _is_team(config):
        team = [copy.deepcopy(config.external_config_dict[TEACHER]), PANEL]
        by_team = config_with(config, ["FreqRank"], **{TEACHER: team})
        entries.append(Entry("distilled", "FreqRank by a team", by_team, True))
    return entries


def _is_team(config: Any) -> bool:
    return isinstance(config[TEACHER], list) or config[TEACHER] == PANEL
