"""Checks the keys beside ``teacher:``: weights, filter, panel, and the student's start."""

import logging
from typing import Any

from recbole_freqd.config.names import TEACHER, WEIGHT_AVERAGE, run_keys
from recbole_freqd.config.teacher import PANEL
from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.schema import read_keys, run_defaults

AUTO, NONE = "auto", "none"
WARM_START = "warm_start"
BY_TEACHER, BY_LISTS = "teacher", "lists"
FROM_TEACHER = (BY_TEACHER, BY_LISTS)
"""The values of ``warm_start`` that need a teacher."""
WARM_KEYS = {
    "freqrank_beta": 0.0,
    "teacher_filter": NONE,
    WEIGHT_AVERAGE: 0.0,
    WARM_START: BY_TEACHER,
}
"""FreqRank's keys for the student alone that begins as the best approximation of its teacher."""
logger = logging.getLogger(__name__)


def complete_teaching(external: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Checks these keys against each other; returns what they are where the user says nothing.

    Args:
        external: What the user gave, each value checked, ``teacher`` in its checked form.
        names: Of the trainers; each may have defaults of its own, the first one's count.

    Raises:
        ConfigError: Weights that do not fit the list of teachers; an unknown model of a panel.
    """
    teacher = external[TEACHER]
    members = teacher if isinstance(teacher, list) else [teacher]
    _check_weights(external.get("teacher_weights", AUTO), members)
    _check_panel(external, PANEL in members)
    defaults = {name: key.default for name, key in run_keys().items() if name != "resume"}
    for name in reversed(names):
        defaults.update(run_defaults(name))
    return defaults


def _check_weights(weights: Any, members: list[Any]) -> None:
    if weights == AUTO:
        return
    if len(weights) != len(members) or min(weights) < 0 or sum(weights) == 0:
        raise ConfigError(
            f"teacher_weights: got {short_repr(weights)} for {len(members)} entries of `teacher`; "
            "allowed: auto, or one number of at least 0 for each entry (a panel is one), not all "
            "0."
        )
    if members == [members[0]] and members[0] != PANEL:
        logger.warning("teacher_weights: no effect, since there is one teacher.")


def _check_panel(external: dict[str, Any], there_is_one: bool) -> None:
    keys = read_keys("panel.yaml")
    idle = sorted(set(keys) & set(external))
    if idle and not there_is_one:
        logger.warning(
            "%s: no effect, since there is no panel among the teachers.", join_names(idle)
        )
    known = keys["panel_models"].default
    for model in external.get("panel_models", ()):
        if model not in known:
            raise ConfigError(
                f"panel_models: got {short_repr(model)}; allowed: {join_names(known)}."
            )


def check_untaught(external: dict[str, Any]) -> None:
    """Raises ConfigError if a student without a trainer shall begin as its teacher."""
    if external.get(WARM_START) in FROM_TEACHER:
        raise ConfigError(
            f"warm_start: got {external[WARM_START]}, but no trainer is named, so there is no "
            "teacher. For a "
            "student that starts warm and then trains alone set trainer: FreqRank and "
            "freqrank_beta: 0; for one that starts from an older student, warm_start: PATH."
        )


def is_written(config: Any, key: str) -> bool:
    """Whether the user has set a key of a finished Config, and not a default."""
    if key in config.external_config_dict:
        return True
    return config.final_config_dict.get(key) != config.internal_config_dict.get(key)
