"""Which teacher a config asks for."""

import logging
from typing import Any, Optional

from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import CHECKPOINT
from recbole_freqd.config.values import check_data
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.teacher.base import Teacher
from recbole_freqd.teacher.checkpoint import from_checkpoint
from recbole_freqd.teacher.checks import check_features
from recbole_freqd.teacher.recipe import from_recipe

logger = logging.getLogger(__name__)

_OF_A_CHECKPOINT: tuple[str, ...] = (
    *("allow_leakage", "min_overlap"),
    *("trust_checkpoint", "trust_data"),
)
_OF_A_RECIPE: tuple[str, ...] = ("keep_every",)


def find_teacher(config: Any, train_data: Any, valid_data: Optional[Any]) -> Teacher:
    """The teacher a student's config asks for.

    Global random streams and the loaders' own are left as they were.

    Args:
        config: The student's completed Config.
        train_data, valid_data: The student's loaders; a recipe is trained on their data.

    Raises:
        ConfigError, CheckpointError, TeacherError: The teacher cannot be had, or does not fit.
    """
    generators = [loader.generator for loader in (train_data, valid_data) if loader is not None]
    check_data(config, train_data._dataset)
    spec = config[TEACHER]
    _say_idle(spec)
    find = from_recipe if spec.get(CHECKPOINT) is None else from_checkpoint
    with rng_untouched(*generators):
        teacher = find(config, spec, train_data, valid_data)
    check_features(teacher.features, teacher.known, train_data._dataset, teacher.checkpoint)
    return teacher


def _say_idle(spec: dict[str, Any]) -> None:
    """Warns of keys that are of the other form of teacher."""
    form, others = "a checkpoint", _OF_A_RECIPE
    if spec.get(CHECKPOINT) is None:
        form, others = "a recipe", _OF_A_CHECKPOINT
    idle = [f"{TEACHER}.{key}" for key in others if spec.get(key)]
    if idle:
        logger.warning("%s: no effect, since the teacher is %s.", ", ".join(idle), form)
