"""Merges and checks ``teacher:`` in all its forms, one or a list."""

import copy
from dataclasses import replace
from typing import Any, Optional

from recbole_freqd.config.models import name_of_class
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.values import check_recipe_values
from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.schema import nearest, read_keys

RECIPE, CHECKPOINT, VECTORS, LISTS = "model", "checkpoint", "vectors", "lists"
FORMS = (RECIPE, CHECKPOINT, VECTORS, LISTS)
PANEL = "panel"
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


def reserved_option(teacher: dict[str, Any], name: str) -> Any:
    """One of the reserved keys of a teacher, or its default."""
    value = teacher.get(name)
    return read_keys("teacher.yaml")[name].default if value is None else value


class DottedKeys(dict[str, Any]):
    """Keys given as ``teacher.x`` or ``teacher.0.x``, less ``teacher.``: they change what is below.

    A nested ``teacher`` may say all there is to say instead.
    """


def plain_keys(teacher: Any) -> Any:
    """Dotted keys that have nothing below them, as the plain dict that a checkpoint can keep."""
    return dict(teacher) if isinstance(teacher, DottedKeys) else teacher


def merge_teachers(low: Any, high: Any) -> Any:
    """Merges a ``teacher`` from two places: two nested ones, or a list and dotted keys.

    Raises:
        ConfigError: Keys that do not say which teacher of a list, or panel, they are of.

    Example:
        >>> merge_teachers([{"model": "BPR"}, "panel"], DottedKeys({"0.epochs": 5}))
        [{'model': 'BPR', 'epochs': 5}, 'panel']
    """
    if not isinstance(high, dict):
        return copy.deepcopy(high)  # checked values are put in their place
    if low is None:
        return high
    if isinstance(low, dict):
        return {**low, **high}
    if not isinstance(high, DottedKeys) and set(FORMS) & set(high):
        return dict(high)
    check_teacher_is_nested(low)
    members = list(low) if isinstance(low, list) else [low]
    for key, value in high.items():
        index, _, own = str(key).partition(".")
        if not (own and index.isdecimal()):
            raise ConfigError(
                f"{TEACHER}.{key}: got {short_repr(value)}, but teacher is a list; allowed: the "
                f"number of a teacher before the key, e.g. --{TEACHER}.0.{key}=..."
            )
        if int(index) >= len(members) or not isinstance(members[int(index)], dict):
            raise ConfigError(
                f"{TEACHER}.{key}: got {short_repr(value)}, but teacher has no recipe or "
                f"checkpoint at place {index}; it is {short_repr(low)}. Places are counted from 0."
            )
        members[int(index)] = {**members[int(index)], own: value}
    return members


def check_teacher_is_nested(teacher: Any, name: str = TEACHER) -> None:
    """Raises ConfigError unless it can be a teacher, or a list of teachers."""
    if isinstance(teacher, list) and name == TEACHER:
        for place, member in enumerate(teacher):
            check_teacher_is_nested(member, f"{TEACHER}.{place}")
    elif not isinstance(teacher, dict) and not _is_panel(teacher):
        raise ConfigError(
            f"{name}: got {short_repr(teacher)}; allowed: nested keys, either `teacher: "
            "{checkpoint: saved/....pth}` or a recipe like `teacher: {model: BPR, embedding_size: "
            "64}`; a list of these, which is a team; or the word panel."
        )


def _is_panel(teacher: Any) -> bool:
    return isinstance(teacher, str) and teacher.lower() == PANEL


def has_a_form(teacher: Any) -> bool:
    """Whether it is, or a list of it holds, a teacher in one of our forms.

    Example:
        >>> has_a_form({"model": "BPR"}), has_a_form(["panel"]), has_a_form({"name": "bert"})
        (True, True, False)
    """
    members = teacher if isinstance(teacher, (list, tuple)) else [teacher]
    return any(
        _is_panel(member)
        or (isinstance(member, dict) and any(member.get(form) is not None for form in FORMS))
        for member in members
    )


def check_teachers(teacher: Any, categories: dict[str, list[str]]) -> Any:
    """Checks ``teacher`` in any of its forms.

    Args:
        teacher: What the user gave.
        categories: RecBole's names of keys by category.

    Returns:
        The keys of a single teacher, or a list of those and of ``"panel"``: a list of one is that
        one, a panel is always in a list.

    Raises:
        ConfigError: There is none, or it is not in one of its forms.
    """
    if not teacher:
        raise ConfigError(
            "trainer is set but there is no teacher. Add `teacher: {checkpoint: saved/....pth}` or "
            "a recipe like `teacher: {model: BPR, embedding_size: 64}` to the config "
            "(--teacher.model=BPR on the command line)."
        )
    teacher = plain_keys(list(teacher) if isinstance(teacher, tuple) else teacher)
    check_teacher_is_nested(teacher)
    members = teacher if isinstance(teacher, list) else [teacher]
    if sum(map(_is_panel, members)) > 1:
        raise ConfigError(f"teacher: got {short_repr(teacher)}; allowed: one panel in a list.")
    if len(members) == 1 and isinstance(members[0], dict):
        check_teacher(members[0], categories)
        return members[0]
    for place, member in enumerate(members):
        if isinstance(member, dict):
            check_teacher(member, categories, f"{TEACHER}.{place}")
    return [PANEL if _is_panel(member) else member for member in members]


def check_teacher(
    teacher: dict[str, Any], categories: dict[str, list[str]], name: str = TEACHER
) -> None:
    """Raises ConfigError unless a teacher has exactly one form, and only keys of a teacher."""
    specs = read_keys("teacher.yaml")
    for key in specs:
        if key in teacher:
            spec = replace(specs[key], name=f"{name}.{key}")
            teacher[key] = spec.check(teacher[key])
    if isinstance(teacher.get(RECIPE), type):
        # By name: a student's checkpoint keeps its config, and must not need the teacher's class.
        teacher[RECIPE] = name_of_class(teacher[RECIPE])
    recipe = {key: value for key, value in teacher.items() if key not in specs}
    _check_names(recipe, list(specs), categories, name)
    stored = [form for form in FORMS if form != RECIPE and teacher.get(form) is not None]
    if len(stored) + bool(recipe) > 1:
        forms = [f"{name}.{form}={short_repr(teacher[form])}" for form in stored]
        if recipe:
            forms.append(f"a recipe ({join_names(f'{name}.{key}' for key in recipe)})")
        raise ConfigError(f"{name} has two forms: {' and '.join(forms)}. Keep one of them.")
    if not stored and recipe.get(RECIPE) is None:
        raise ConfigError(
            f"{name}: got {short_repr(teacher)}, which names neither {name}.checkpoint nor "
            f"{name}.model. Give one of the two, or files of another system: {name}.vectors or "
            f"{name}.lists."
        )
    teacher.update(check_recipe_values(recipe, f"{name}."))


def form_of(teacher: dict[str, Any]) -> str:
    """Which of :data:`FORMS` a checked teacher has.

    Example:
        >>> form_of({"checkpoint": None, "lists": "lists.csv"})
        'lists'
    """
    stored = (form for form in FORMS if form != RECIPE and teacher.get(form) is not None)
    return next(stored, RECIPE)


def is_recipe(teacher: dict[str, Any]) -> bool:
    """Whether a checked teacher is trained by us, and not read from files."""
    return form_of(teacher) == RECIPE


def _check_names(
    recipe: dict[str, Any], reserved: list[str], categories: dict[str, list[str]], name: str
) -> None:
    inherited = inherited_keys(categories)
    for key in recipe:
        near = nearest(key, reserved)
        if near:
            raise ConfigError(
                f"Unknown key {short_repr(f'{name}.{key}')}; did you mean '{name}.{near}'?"
            )
        if str(key).partition(".")[0].isdecimal():
            raise ConfigError(
                f"{name}.{key}: got {short_repr(recipe[key])}, but teacher is no list: leave out "
                f"the {str(key).partition('.')[0]}, or make it one."
            )
        if key in inherited or key in ("dataset", "trainer", TEACHER):
            raise ConfigError(
                f"'{name}.{key}' is not allowed: environment, data, split and evaluation are the "
                f"student's, or the two would not fit together. Set {key} at the top level."
            )


def teachers_of(teacher: Any) -> list[dict[str, Any]]:
    """The recipes and checkpoints of a checked ``teacher``, without a panel."""
    members = teacher if isinstance(teacher, list) else [teacher]
    return [member for member in members if isinstance(member, dict)]


def recipe_of(teacher: Any) -> Optional[dict[str, Any]]:
    """Gives the recipe of a single teacher; None for files or a team."""
    return teacher if isinstance(teacher, dict) and is_recipe(teacher) else None


def teacher_label(teacher: Any) -> str:
    """A checked ``teacher`` in a few words: models, checkpoints, ``panel``."""
    members = teacher if isinstance(teacher, list) else [teacher]
    return " + ".join(
        str(member[form_of(member)]) if isinstance(member, dict) else str(member)
        for member in members
    )


def inherited_keys(categories: dict[str, list[str]]) -> set[str]:
    """RecBole's keys that a teacher always takes from the student."""
    return set(_ENVIRONMENT).union(*(categories[name] for name in _INHERITED_CATEGORIES))
