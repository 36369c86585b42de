"""Finds the teachers that a config names, and what they teach."""

import logging
from typing import Any, Optional

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import (
    CHECKPOINT,
    LISTS,
    PANEL,
    RECIPE,
    VECTORS,
    form_of,
    is_recipe,
    teachers_of,
)
from recbole_freqd.config.values import check_data
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.later import LaterFeatures, made_later
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.core.rows import Features
from recbole_freqd.core.schema import read_keys
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime.seconds import counted_as_choice
from recbole_freqd.teacher.base import Teacher
from recbole_freqd.teacher.checkpoint import from_checkpoint
from recbole_freqd.teacher.checks import check_features
from recbole_freqd.teacher.choice.chooser import Chooser
from recbole_freqd.teacher.choice.panel import choose_panel, panel_models
from recbole_freqd.teacher.files.files import from_lists, from_vectors
from recbole_freqd.teacher.models.gfcf import bases_kept
from recbole_freqd.teacher.recipe import from_recipe
from recbole_freqd.teacher.teach import teach

logger = logging.getLogger(__name__)

_FIND = {
    RECIPE: from_recipe,
    CHECKPOINT: from_checkpoint,
    VECTORS: from_vectors,
    LISTS: from_lists,
}
_OF_SOME_FORMS = {  # keys, and the forms of teacher that they are of
    "trust_checkpoint": (CHECKPOINT,),
    "trust_data": (CHECKPOINT,),
    "allow_leakage": (CHECKPOINT, VECTORS, LISTS),
    "min_overlap": (CHECKPOINT, VECTORS, LISTS),
    "lists_user": (LISTS,),
    "lists_item": (LISTS,),
    "lists_score": (LISTS,),
    "lists_rank": (LISTS,),
    "keep_every": (RECIPE,),
}
_IN_WORDS = {RECIPE: "a recipe", CHECKPOINT: "a checkpoint", VECTORS: "vectors", LISTS: "lists"}


def find_teacher(config: Any, train_data: Any, valid_data: Optional[Any]) -> Teacher:
    """Finds what a student is taught: by a teacher or a team, filtered or not.

    Global random streams and the loaders' own are left as they were.

    Args:
        config: The student's completed Config.
        train_data, valid_data: The student's loaders; a recipe is trained on their data.

    Raises:
        ConfigError, CheckpointError, TeacherError: A teacher cannot be made, or does not fit.
    """
    generators = [loader.generator for loader in (train_data, valid_data) if loader is not None]
    check_data(config, train_data._dataset)
    check_trajectory(trainer_names(config["trainer"]), config[TEACHER])
    chooser = Chooser(config, train_data, valid_data)
    with rng_untouched(*generators), bases_kept():
        specs, places = _spelled_out(config, chooser)
        teachers = [_find_one(config, spec, train_data, valid_data) for spec in specs]
        return teach(chooser, teachers, places)


def _find_one(
    config: Any, spec: dict[str, Any], train_data: Any, valid_data: Optional[Any]
) -> Teacher:
    """Finds one teacher, with every check."""
    _say_idle(spec)
    teacher = _FIND[form_of(spec)](config, spec, train_data, valid_data)
    features = teacher.features

    def checked() -> Features:
        with rng_untouched():  # a model may be built for them
            check_features(features, teacher.known, train_data._dataset, teacher.checkpoint)
        return features

    is_later = isinstance(features, LaterFeatures)
    teacher.features = made_later(checked) if is_later else checked()
    return teacher


def _spelled_out(config: Any, chooser: Chooser) -> tuple[list[dict[str, Any]], list[int]]:
    """Recipes and checkpoints, a panel's own among them, and the entry that each is of."""
    given = config[TEACHER] if isinstance(config[TEACHER], list) else [config[TEACHER]]
    specs: list[dict[str, Any]] = []
    places: list[int] = []
    for place, entry in enumerate(given):
        members = _panel(config, chooser) if entry == PANEL else [entry]
        specs += members
        places += [place] * len(members)
    return specs, places


def _panel(config: Any, chooser: Chooser) -> list[dict[str, Any]]:
    """The recipes of the panel, with keys chosen on validation."""
    keys = {key: config[key] for key in read_keys("panel.yaml")}
    allowed = panel_models(chooser.user_items.shape[1], keys["panel_ease_items"])
    models = [model for model in keys["panel_models"] if model in allowed]
    left_out = [model for model in keys["panel_models"] if model not in allowed]
    if not models:
        raise ConfigError(
            f"panel_models: got {keys['panel_models']}, but EASE is tried below "
            f"{keys['panel_ease_items']} items only. Raise panel_ease_items, or add a model."
        )
    if left_out:
        logger.info("Panel without %s: there are too many items.", ", ".join(left_out))

    def choose() -> list[dict[str, Any]]:
        sample = chooser.sample(keys["panel_users"])
        with counted_as_choice():
            choices = choose_panel(
                chooser.user_items, sample, models=models, seconds=keys["panel_seconds"]
            )
        return [{RECIPE: model, **choice.keys} for model, choice in choices.items()]

    return chooser.choose_once("panel", keys, choose)


def _say_idle(spec: dict[str, Any]) -> None:
    """Warns of keys that are of other forms of teacher."""
    form = form_of(spec)
    idle = [
        f"{TEACHER}.{key}"
        for key, forms in _OF_SOME_FORMS.items()
        if form not in forms and spec.get(key)
    ]
    if idle:
        words = ", ".join(idle)
        logger.warning("%s: no effect, since the teacher is %s.", words, _IN_WORDS[form])


def check_trajectory(methods: list[str], teacher: Any) -> None:
    """Raises ConfigError where a loss reads the teacher's earlier selves and none are kept."""
    readers = [method for method in methods if LOSSES.get(method).reads_trajectory]
    members = teachers_of(teacher)
    if not readers or any(member.get("keep_every") and is_recipe(member) for member in members):
        return
    given = "recipes without teacher.keep_every"
    if len(members) == 1:
        given = "a recipe without teacher.keep_every"
        if not is_recipe(members[0]):
            form = form_of(members[0])
            given = f"a teacher.{form} ({members[0][form]})"
    raise ConfigError(
        f"{', '.join(readers)} follows the teacher's training and needs checkpoints from on the "
        f"way; got {given}. Allowed: a recipe that keeps them, e.g. `teacher: {{model: BPR, "
        "keep_every: 10}`, in epochs."
    )
