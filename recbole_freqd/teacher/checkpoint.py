"""A teacher from a checkpoint: of the student's own data, or made to fit it."""

import logging
from typing import Any, Optional

import numpy as np

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.identity import data_fingerprint, read_fingerprint, same_data
from recbole_freqd.config.make import adopt_world
from recbole_freqd.config.models import check_model_name
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import CHECKPOINT
from recbole_freqd.core.rows import Features
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features import registered_adapter
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
from recbole_freqd.teacher.restore import (
    compare_with_record,
    compare_with_score,
    holds_class,
    load_model,
    model_class,
    rebuild,
)

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
    path, trust = str(spec[CHECKPOINT]), bool(spec.get("trust_checkpoint"))
    payload = load_checkpoint(
        path, map_location=config["device"], trust=trust, named_by=f"{TEACHER}.{CHECKPOINT}"
    )
    stored, student = payload["config"], train_data._dataset
    if not holds_class(stored):
        check_model_name(stored["model"], f"model of {path}", only_general=True)
    registered_adapter(model_class(stored))
    stored["trust_checkpoint"] = trust
    check_lessons(stored, allow=bool(spec.get("allow_leakage")), path=path)
    record = read_fingerprint(path)
    if record is None or not same_data(record, data_fingerprint(student)):
        teacher = _of_other_data(config, spec, payload, record, train_data, valid_data)
    else:
        _adopt(stored, config)
        features = make_features_once(
            config,
            spec,
            lambda: features_of(config, spec, load_model(stored, payload, student, path)),
        )
        teacher = Teacher(stored, path, features, "checkpoint")
    logger.info("Teacher loaded: %s from %s", stored["model"], path)
    return teacher


def _of_other_data(
    config: Any,
    spec: dict[str, Any],
    payload: dict[str, Any],
    record: Optional[dict[str, str]],
    train_data: Any,
    valid_data: Optional[Any],
) -> Teacher:
    """A teacher whose data is not known to be the student's: it is read again and compared."""
    path, allow = str(spec[CHECKPOINT]), bool(spec.get("allow_leakage"))
    stored, student = payload["config"], train_data._dataset
    home = rebuild(stored, config, path)
    if record is not None:
        compare_with_record(home, record, allow=allow, path=path)
    alignment = align(home.train, student)
    check_overlap(alignment, _least_overlap(spec), path)
    if stored["dataset"] != config["dataset"]:
        share = shared_training(home, alignment, train_data)
        logger.warning(
            "Teacher %s was trained on the dataset %s, the student is on %s: users and items are "
            "taken for the same where their names are. %.1f %% of the student's training pairs "
            "among them are the teacher's too; if that is next to nothing, they are not the same.",
            path,
            stored["dataset"],
            config["dataset"],
            100 * share,
        )
    check_leakage(home, alignment, train_data, valid_data, allow=allow, path=path)

    def make() -> Features:
        model = load_model(home.config, payload, home.train, path)
        features = features_of(config, spec, model)
        if record is None:
            compare_with_score(home, model, payload, allow=allow, path=path)
        return alignment.remapped(features, mapped=is_mapped(config, spec))

    features = make_features_once(config, spec, make)
    _adopt(stored, config)
    other = None
    if not alignment.is_in_order or not np.array_equal(pairs(home.train), pairs(student)):
        other = OtherData(home.config, home.train, alignment)
    return Teacher(stored, path, features, "checkpoint", other_data=other)


def _adopt(stored: Any, config: Any) -> None:
    """The student's world, but for the seed: RecBole builds some models (SimpleX) by chance."""
    seed = stored["seed"]
    adopt_world(stored, config)
    stored["seed"] = seed


def _least_overlap(spec: dict[str, Any]) -> float:
    least = spec.get("min_overlap")
    return float(read_keys("teacher.yaml")["min_overlap"].default if least is None else least)
