"""Checks of what stands below ``teacher:``."""

from dataclasses import replace
from typing import Any

from recbole_freqd.config.models import name_of_class
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.values import check_recipe_values
from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.schema import nearest, read_keys

RECIPE, CHECKPOINT, VECTORS, LISTS = "model", "checkpoint", "vectors", "lists"
# Keys of RecBole's properties/overall.yaml that its own lists of arguments forget; and one of ours.
_ENVIRONMENT = (
    "resume",
    "worker",
    "wandb_project",
    "shuffle",
    "enable_amp",
    "enable_scaler",
    "transform",
)
_INHERITED_CATEGORIES = ("General", "Evaluation", "Dataset")


def check_teacher_is_nested(teacher: Any) -> None:
    if not isinstance(teacher, dict):
        raise ConfigError(
            f"teacher: got {short_repr(teacher)}; allowed: nested keys, either "
            "`teacher: {checkpoint: saved/....pth}` or a recipe like "
            "`teacher: {model: BPR, embedding_size: 64}`."
        )


def check_teacher(teacher: Any, categories: dict[str, list[str]]) -> None:
    """Raises unless there is exactly one form of teacher, made of keys a teacher may have."""
    if not teacher:
        raise ConfigError(
            "trainer is set but there is no teacher. Add `teacher: {checkpoint: saved/....pth}` or "
            "a recipe like `teacher: {model: BPR, embedding_size: 64}` to the config "
            "(--teacher.model=BPR on the command line)."
        )
    check_teacher_is_nested(teacher)
    specs = read_keys("teacher.yaml")
    for key in specs:
        if key in teacher:
            spec = replace(specs[key], name=f"{TEACHER}.{key}")
            teacher[key] = spec.check(teacher[key])
    if isinstance(teacher.get(RECIPE), type):
        # By name: a student's checkpoint keeps its config, and must not need the teacher's class.
        teacher[RECIPE] = name_of_class(teacher[RECIPE])
    recipe = {key: value for key, value in teacher.items() if key not in specs}
    for key in recipe:
        near = nearest(key, list(specs))
        if near:
            raise ConfigError(
                f"Unknown key {short_repr(f'teacher.{key}')}; did you mean 'teacher.{near}'?"
            )
    if recipe and teacher.get(CHECKPOINT) is not None:
        raise ConfigError(
            f"teacher has two forms: teacher.checkpoint={short_repr(teacher[CHECKPOINT])} and a "
            f"recipe ({join_names(f'teacher.{key}' for key in recipe)}). Keep one of them."
        )
    if teacher.get(CHECKPOINT) is None and recipe.get(RECIPE) is None:
        raise ConfigError(
            f"teacher: got {short_repr(teacher)}, which names neither teacher.checkpoint nor "
            "teacher.model. Give one of the two."
        )
    inherited = inherited_keys(categories)
    for key in recipe:
        if key in inherited or key in ("dataset", "trainer", TEACHER):
            raise ConfigError(
                f"'teacher.{key}' is not allowed: environment, data, split and evaluation are the "
                f"student's, or the two would not fit together. Set {key} at the top level."
            )
    teacher.update(check_recipe_values(recipe))


def inherited_keys(categories: dict[str, list[str]]) -> set[str]:
    """RecBole's keys that a teacher always takes from the student."""
    return set(_ENVIRONMENT).union(*(categories[name] for name in _INHERITED_CATEGORIES))
