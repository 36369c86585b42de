"""Makes a teacher from a checkpoint, of the student's own data or fitted to it."""

import logging
from typing import Any, Optional

import numpy as np

from recbole_freqd.config.teacher import CHECKPOINT, reserved_option
from recbole_freqd.core.rows import Features
from recbole_freqd.features.data import pairs
from recbole_freqd.teacher.alignment import align, check_overlap
from recbole_freqd.teacher.base import (
    OtherData,
    Teacher,
    features_of,
    is_mapped,
    make_features_once,
)
from recbole_freqd.teacher.leakage import check_leakage, check_lessons, shared_training
from recbole_freqd.teacher.reader import FOR_TEACHING
from recbole_freqd.teacher.restore import Environment, Restored, adopted, restore

logger = logging.getLogger(__name__)


def from_checkpoint(
    config: Any, spec: dict[str, Any], train_data: Any, valid_data: Optional[Any]
) -> Teacher:
    """Loads a teacher and makes its rows the student's.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.
        train_data, valid_data: The student's loaders.

    Raises:
        ConfigError, CheckpointError, TeacherError: It cannot be loaded, does not fit the data, or
            has seen what the student is tested on.
    """
    path, allow = str(spec[CHECKPOINT]), bool(spec.get("allow_leakage"))
    trust, student = bool(spec.get("trust_checkpoint")), train_data._dataset
    restored = restore(
        path,
        Environment.of(config),
        FOR_TEACHING,
        trust=trust,
        trust_data=bool(spec.get("trust_data")),
        allow_leakage=allow,
        own=student,
    )
    check_lessons(restored.stored, allow=allow, path=path)
    if restored.is_own:
        features = make_features_once(
            config, spec, lambda: features_of(config, spec, restored.model())
        )
        teacher = Teacher(restored.config, path, features, "checkpoint")
    else:
        teacher = _of_other_data(config, spec, restored, train_data, valid_data)
    teacher.config["trust_checkpoint"] = trust
    logger.info("Teacher loaded: %s from %s", teacher.config["model"], path)
    return teacher


def _of_other_data(
    config: Any,
    spec: dict[str, Any],
    restored: Restored,
    train_data: Any,
    valid_data: Optional[Any],
) -> Teacher:
    """Compares the data of a teacher that may not be the student's, once it is read again."""
    path, student, stored = restored.path, train_data._dataset, restored.stored
    alignment = align(restored.train, student)
    check_overlap(alignment, reserved_option(spec, "min_overlap"), path)
    if stored["dataset"] != config["dataset"]:
        share = shared_training(restored, alignment, train_data)
        logger.warning(
            "Teacher %s was trained on the dataset %s, the student on %s. Users and items of one "
            "name are taken to be the same. %.1f %% of the student's training pairs among them "
            "are the teacher's too. If that is next to nothing, the names mean different things.",
            path,
            stored["dataset"],
            config["dataset"],
            100 * share,
        )
    allow = bool(spec.get("allow_leakage"))
    check_leakage(restored, alignment, train_data, valid_data, allow=allow, path=path)

    def make() -> Features:
        features = features_of(config, spec, restored.model())
        return alignment.remapped(features, mapped=is_mapped(config, spec))

    features = make_features_once(config, spec, make)
    other = None
    if not alignment.is_in_order or not np.array_equal(pairs(restored.train), pairs(student)):
        other = OtherData(restored.config, restored.train, alignment)
    return Teacher(adopted(stored, config), path, features, "checkpoint", other_data=other)
