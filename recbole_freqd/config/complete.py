"""Completes a Config: nested teacher keys, our defaults, and the check of all keys."""

import logging
from typing import Any, Optional, Union

from recbole_freqd.config.models import keys_read_by
from recbole_freqd.config.names import (
    TEACHER,
    mention_unknown,
    refuse_keys_that_are_no_text,
    refuse_misspelt,
    run_keys,
    teaching_keys,
)
from recbole_freqd.config.reading import fold_dotted, is_everything_checked, paths_as_text
from recbole_freqd.config.teacher import FORMS, check_teachers, has_a_form, plain_keys
from recbole_freqd.config.teaching import check_untaught, complete_teaching
from recbole_freqd.config.values import check_host_values
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import method_keys, nearest
from recbole_freqd.losses import LOSSES

_OF_THE_MLP = ("experts", "hidden", "dropout", "order")
_OF_THE_TERM = ("preference_items", "preference_tau")
_NEAR_A_NAME = 0.7  # FreqDD is a misspelt FreqD, ddp is somebody else's trainer
logger = logging.getLogger(__name__)


def trainer_names(value: Union[str, list[str], None]) -> list[str]:
    """The registered names that ``trainer:`` asks for; empty where it names none.

    A string may hold a list, as the command line gives one: ``[FreqD,FD]``.

    Raises:
        ConfigError: An unknown or repeated name.
    """
    if isinstance(value, str):
        value = [name.strip(" '\"") for name in value.strip("[] ").split(",")]
    given: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    given = [name for name in given if not _is_none(name)]
    names = [LOSSES.canonical(name) for name in given]
    if len(set(names)) < len(names):
        raise ConfigError(f"trainer: {names} names a loss twice. Allowed: each at most once.")
    return names


def _is_none(name: Any) -> bool:
    return name is None or (isinstance(name, str) and name.lower() in ("none", "null", ""))


def names_ours(value: Any) -> list[str]:
    """The registered names that ``trainer:`` asks for; empty where it is a key of somebody else's.

    Raises:
        ConfigError: It is nearly one of our names, or one of ours is beside one that is not.
    """
    try:
        return trainer_names(value)
    except ConfigError:
        if _is_near_ours(value):
            raise
        return []


def _is_near_ours(value: Any) -> bool:
    """Whether ``trainer:`` is, holds or is nearly the name of one of our methods."""
    if isinstance(value, str):
        value = value.strip("[] ").split(",")
    parts = value if isinstance(value, (list, tuple)) else [value]
    known = [name.lower() for name in LOSSES.names()]
    texts = [part.strip(" '\"") for part in parts if isinstance(part, str)]
    return any(nearest(text, known, _NEAR_A_NAME) for text in texts)


def uses_us(external: dict[Any, Any]) -> bool:
    """Whether a config uses this package at all; any other is left alone.

    It does where it names one of our trainers, well or nearly, has a nested ``teacher`` in one of
    its forms, or gives one of our trainers to a key that is nearly ``trainer``.

    Args:
        external: What the user gave, folded or with dotted keys.

    Example:
        >>> uses_us({"kd_weight": 2, "resume": "last.pth", "trainer": "ddp"})
        False
        >>> uses_us({"trainr": "FreqD"}), uses_us({"teacher": {"model": "BPR"}})
        (True, True)
    """
    if _is_near_ours(external.get("trainer")) or has_a_form(external.get(TEACHER)):
        return True
    return any(
        (isinstance(value, str) and value in LOSSES and nearest(str(key), ["trainer"]) is not None)
        or _is_dotted_form(key, value)
        for key, value in external.items()
    )


def _is_dotted_form(key: Any, value: Any) -> bool:
    """Whether it is ``teacher.model``, ``teacher.0.checkpoint`` or the like."""
    start, _, rest = str(key).partition(".")
    return start == TEACHER and rest.rpartition(".")[2] in FORMS and value is not None


def is_checked(external: dict[Any, Any]) -> bool:
    """Whether this package checks a config with these keys, folded or not."""
    return is_everything_checked() or uses_us(external)


def complete(
    external: dict[str, Any],
    internal: dict[str, Any],
    categories: dict[str, list[str]],
    model_class: Optional[type] = None,
) -> dict[str, Any]:
    """Checks everything the user set and returns the defaults of the trainers named.

    The only place where a config is checked: RecBole's Config comes here while it is made, with
    :func:`recbole_freqd.register`, and a trainer that is built by hand comes here without.

    Args:
        external: What the user gave (files, dict, command line), folded; ``trainer`` and checked
            values are put in their canonical form in place.
        internal: RecBole's defaults for this model and dataset.
        categories: RecBole's names of keys by category (``config.parameters``).
        model_class: Of the student; keys that its code reads are its own.

    Returns:
        Default of every key of every trainer named, and of what is taught; empty where no trainer
        is named.

    Raises:
        ConfigError: Misspelt or unknown keys of ours, values out of range, contradictions, no
            teacher or two forms of one.
    """
    everything = is_everything_checked()
    if not everything and not uses_us(external):
        _note_idle(external, model_class)
        return {}
    refuse_keys_that_are_no_text(external)
    external.update(paths_as_text(external))
    hosts = set(internal).union(*categories.values())
    own = keys_read_by(model_class) if model_class is not None else frozenset()
    refuse_misspelt(external, hosts | own)
    for key, spec in run_keys().items():
        if key in external:
            external[key] = spec.check(external[key])
    names = trainer_names(external.get("trainer"))
    if names or everything:
        mention_unknown(external, hosts)
        checked = check_host_values({**internal, **external}, internal)
        external.update({key: value for key, value in checked.items() if key in external})
    if not names:
        check_untaught(external)
        _note_idle(external, model_class)
        return {}
    external["trainer"] = names[0] if len(names) == 1 else names
    defaults = _check_methods(external, names)
    external[TEACHER] = check_teachers(external.get(TEACHER), categories)
    return {**complete_teaching(external, names), **defaults}


def _check_methods(external: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Checks the given keys of all methods; returns the defaults of those that are named."""
    defaults: dict[str, Any] = {}
    for name in LOSSES.names():
        checked = _check_method(name, external)
        if name in names:
            defaults.update(checked)
        elif set(checked) & set(external):
            idle = ", ".join(sorted(set(checked) & set(external)))
            logger.warning("%s has no effect: trainer is %s.", idle, external["trainer"])
    return defaults


def complete_in_place(config: Any, default_trainer: Optional[str] = None) -> None:
    """Does to a finished Config what the hooks of :func:`recbole_freqd.register` do to a new one.

    For scripts that build the trainer by hand, with keys set by ``config[key] = value`` or without
    :func:`recbole_freqd.register`. Doing it twice changes nothing.

    Args:
        config: A RecBole Config.
        default_trainer: What ``trainer`` is where the config names none.

    Raises:
        ConfigError: As :func:`complete`.
    """
    internal, final = config.internal_config_dict, config.final_config_dict
    if final.get("trainer") is None and default_trainer:
        final["trainer"] = default_trainer
    given = {
        key: value for key, value in final.items() if key not in internal or internal[key] != value
    }
    given = fold_dotted(given)
    defaults = complete(given, internal, config.parameters, config.model_class)
    for key in [key for key in final if str(key).startswith(f"{TEACHER}.")]:
        del final[key]
    internal.update(defaults)  # so that they are not taken for given ones the next time
    final.update({**{key: final.get(key, value) for key, value in defaults.items()}, **given})


def method_options(config: Any, method: str) -> dict[str, Any]:
    """The options of a method in a finished Config, by name without prefix.

    Args:
        config: A RecBole Config that has been completed.
        method: A registered name.

    Returns:
        Every option, but for those without effect: ``alpha`` beside a coefficient list, what
        belongs to the mlp beside a linear projector, the shrinkage without a cosine graph, what
        belongs to the term for projectors without its weight.
    """
    prefix = LOSSES.get(method).prefix
    options = {name[len(prefix) + 1 :]: config[name] for name in method_keys(method)}
    if not isinstance(options.get("filter", ""), str):
        options.pop("alpha", None)
    if options.get("projector") == "linear":
        options = {key: value for key, value in options.items() if key not in _OF_THE_MLP}
    if options.get("graph") == "counts":
        del options["graph_shrinkage"]
    if options.get("preference_beta") == 0:
        options = {key: value for key, value in options.items() if key not in _OF_THE_TERM}
    return options


def _check_method(name: str, external: dict[str, Any]) -> dict[str, Any]:
    """Checks the given keys of a method; returns all its defaults."""
    keys, prefix = method_keys(name), LOSSES.get(name).prefix
    given = {key: external[key] for key in keys if key in external}
    for key, value in given.items():
        external[key] = keys[key].check(value)
    LOSSES.get(name).check_options({key[len(prefix) + 1 :]: external[key] for key in given})
    return {key: spec.default for key, spec in keys.items()}


def _note_idle(external: dict[str, Any], model_class: Optional[type]) -> None:
    """Warns of keys that were meant for a trainer where the config names none."""
    ours = {key for name in LOSSES.names() for key in method_keys(name)}
    if is_everything_checked() or has_a_form(external.get(TEACHER)):
        ours.update(teaching_keys())  # else these names may be somebody else's
    ours &= set(external)
    if TEACHER in external:
        external[TEACHER] = plain_keys(external[TEACHER])
    if has_a_form(external.get(TEACHER)):
        ours.add(TEACHER)
    if "trainer" in external and _is_none_at_all(external["trainer"]):
        external["trainer"] = None
    elif ours and model_class is not None:
        ours -= keys_read_by(model_class)
    if ours and "trainer" not in external:
        logger.warning(
            "%s: no effect, since no trainer is named (unless FreqDTrainer is made by hand).",
            ", ".join(sorted(ours)),
        )


def _is_none_at_all(trainer: Any) -> bool:
    return _is_none(trainer) or (trainer in ("[]", [], ()))
