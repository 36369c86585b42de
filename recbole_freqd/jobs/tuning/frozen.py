"""Frozen configs: the keys chosen for everything that is compared, and their purpose."""

from typing import Any, Callable

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.make import keys_known_to
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.reading import fold_dotted
from recbole_freqd.config.teacher import CHECKPOINT, recipe_of, teacher_label
from recbole_freqd.core.errors import ConfigError, did_you_mean
from recbole_freqd.core.files import read_yaml
from recbole_freqd.core.schema import method_keys
from recbole_freqd.jobs.fairness import (
    EQUAL_FOR_ALL,
    OF_THE_TEACHER,
    config_of,
    equal_for_all,
    other_caps,
)
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.tuning.space import ALONE, WARM
from recbole_freqd.losses import LOSSES
from recbole_freqd.teacher.recipe import recipe_config

_TUNED = "tuned"  # the section about the search itself
_SAME = {"dataset": "dataset", "model": "student", "teacher_model": "teacher"}


def made_for(base: Any) -> dict[str, Any]:
    """Says what keys are chosen for: data, models, and how far a trial is trained.

    Args:
        base: A Config with a teacher.

    Raises:
        CheckpointError: The teacher is a checkpoint that cannot be read.
    """
    spec = base[TEACHER]
    teacher = teacher_label(spec)
    if isinstance(spec, dict) and spec.get(CHECKPOINT) is not None:
        trust, named_by = bool(spec.get("trust_checkpoint")), f"{TEACHER}.{CHECKPOINT}"
        payload = load_checkpoint(spec[CHECKPOINT], trust=trust, named_by=named_by)
        teacher = payload["config"]["model"]
    return {
        "dataset": base["dataset"],
        "model": base["model"],
        "teacher_model": teacher,
        **{key: base[key] for key in ("epochs", "eval_step", "stopping_step")},
        "metric": str(base["valid_metric"]).lower(),
    }


def refuse_fixed(base: Any, what: str, keys: Any, chosen: str) -> None:
    """Keys of the command line win over all others, so nothing else may choose them.

    Args:
        base: A Config that was made with the command line.
        what: ``teacher``, ``alone`` or a method.
        keys: What is chosen for it.
        chosen: What chooses them, as the message says it.

    Raises:
        ConfigError: One of them is on the command line.
    """
    fixed = fold_dotted(base.cmd_config_dict)
    fixed = (fixed.get(TEACHER) or {}) if what == TEACHER else fixed
    for key in keys:
        if key in fixed:
            name = f"{TEACHER}.{key}" if what == TEACHER else key
            raise ConfigError(f"--{name}=... fixes what {chosen}. Remove one of them.")


def read_frozen(
    file: str, methods: dict[str, list[str]], base: Any, say: Callable[[str], None] = print_line
) -> dict[str, dict[str, Any]]:
    """Frozen configs as :func:`.budget.tune` wrote them, or written by hand.

    Args:
        file: Its path.
        methods: That need a section.
        base: A Config with the keys of all methods and the teacher.
        say: Where it is said that trials were shorter or longer than the runs will be.

    Raises:
        ConfigError: No such file, it is of other data or models, a method has no section, there
            is a section for what does not exist, or a key that its model or method does not have,
            that is not one to be chosen, or that the command line fixes.
        CheckpointError: The teacher is a checkpoint that cannot be read.
    """
    given = read_yaml(file, "--frozen")
    frozen = {what: {} if keys is None else keys for what, keys in given.items()}
    _check_sections(file, frozen, methods)
    _check_purpose(file, frozen.get(_TUNED, {}), base, say)
    for what, keys in frozen.items():
        if what != _TUNED:
            _check_keys(file, what, keys, base)
    _check_teacher(file, frozen, methods, base)
    for what in (TEACHER, ALONE, WARM, *methods):
        refuse_fixed(base, what, frozen.get(what, ()), f"{file} sets for {what}")
    return frozen


def _check_sections(file: str, frozen: dict[str, Any], methods: dict[str, list[str]]) -> None:
    allowed = [_TUNED, TEACHER, ALONE, WARM, *LOSSES.names()]
    for what, keys in frozen.items():
        if not set(str(what).split("+")) <= set(LOSSES.names()) and what not in allowed:
            raise ConfigError(
                f"{file}: unknown section {what!r}. {did_you_mean(what, allowed)} Sums such as "
                "FreqD+FD, too. Rename it, or take it out."
            )
        if not isinstance(keys, dict):
            raise ConfigError(f"{file}: {what} holds {keys!r}; allowed: keys with their values.")
    failed = frozen.get(_TUNED, {}).get("failed") or {}
    for what in (ALONE, *methods):
        if what not in frozen and what not in failed:
            raise ConfigError(
                f"{file} has no section {what}; there: {', '.join(frozen)}. Tune it with the same "
                "budget as the others (--tune), or add its keys by hand."
            )


def _check_purpose(file: str, tuned: dict[str, Any], base: Any, say: Callable[[str], None]) -> None:
    """Refuses keys chosen for other data or models; warns of trials trained otherwise."""
    here = made_for(base)
    for key, words in _SAME.items():
        if tuned.get(key, here[key]) != here[key]:
            raise ConfigError(
                f"{file} was tuned for the {words} {tuned[key]}; here the {words} is {here[key]}. "
                f"Tune again (--tune), or, to take its keys nevertheless, remove the line {key} "
                f"from the section {_TUNED}."
            )
    other = other_caps(tuned, here)
    if other:
        say(f"{file} was tuned by trials with {other}; the runs here: {other_caps(here, tuned)}.")


def _check_keys(file: str, what: str, keys: dict[str, Any], base: Any) -> None:
    equal = equal_for_all(base.model_class)
    unequal = sorted(set(keys) & (EQUAL_FOR_ALL - OF_THE_TEACHER if what == TEACHER else equal))
    if unequal:
        raise ConfigError(
            f"{file}: {what} sets {', '.join(unequal)}, which is the same for everything that is "
            "compared. Set it in the config instead."
        )
    if what == TEACHER:
        return
    losses = [] if what in (ALONE, WARM) else what.split("+")
    known = keys_known_to(base).difference(*map(method_keys, LOSSES.names()))
    known.update(*map(method_keys, losses))
    for key in keys:
        if key not in known:
            raise ConfigError(
                f"{file}: {what} sets {key!r}, which neither {base['model']} nor the method has. "
                f"{did_you_mean(key, known)}"
            )


def _check_teacher(
    file: str, frozen: dict[str, Any], methods: dict[str, list[str]], base: Any
) -> None:
    """The keys of the teacher have to be those of a recipe."""
    if not frozen.get(TEACHER):
        return
    try:
        config = config_of(base, next(iter(methods.values())), base["seed"], {}, frozen)
        recipe = recipe_of(config[TEACHER])
        if recipe is not None:
            recipe_config(config, recipe)
    except ConfigError as error:
        raise ConfigError(f"{file}, section teacher: {error}") from error
