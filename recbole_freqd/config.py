"""What RecBole's Config does not know: nested teacher keys, our defaults, and the check of keys."""

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from recbole_freqd.checks import check_config, check_host_values, check_sampling
from recbole_freqd.errors import ConfigError, FreqDError, listed, shown
from recbole_freqd.key_names import TEACHER, mention_unknown, refuse_misspelt
from recbole_freqd.literals import literals_only
from recbole_freqd.losses import LOSSES
from recbole_freqd.model_classes import (
    check_model_name,
    check_own_model,
    class_or_name,
    keys_read_by,
)
from recbole_freqd.settings import method_keys, nearest, read_keys
from recbole_freqd.teacher_keys import CHECKPOINT as CHECKPOINT
from recbole_freqd.teacher_keys import (
    RECIPE,
    check_teacher,
    check_teacher_is_nested,
    inherited_keys,
)

_OF_THE_MLP = ("experts", "hidden", "dropout")
logger = logging.getLogger(__name__)


def deep_merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """``low`` updated by ``high``, where a nested ``teacher`` is merged instead of replaced."""
    merged = {**low, **high}
    if isinstance(low.get(TEACHER), dict) and isinstance(high.get(TEACHER), dict):
        merged[TEACHER] = {**low[TEACHER], **high[TEACHER]}
    return merged


def fold_dotted(keys: dict[str, Any]) -> dict[str, Any]:
    """``{"teacher.model": "BPR"}`` becomes ``{"teacher": {"model": "BPR"}}``.

    Raises:
        ConfigError: ``teacher`` is given beside dotted keys, but not as a nested key.

    Example:
        >>> fold_dotted({"teacher": {"model": "BPR"}, "teacher.embedding_size": 64, "epochs": 5})
        {'teacher': {'model': 'BPR', 'embedding_size': 64}, 'epochs': 5}
    """
    flat = {name: value for name, value in keys.items() if not str(name).startswith(f"{TEACHER}.")}
    dotted = {name[len(TEACHER) + 1 :]: value for name, value in keys.items() if name not in flat}
    if not dotted:
        return flat
    check_teacher_is_nested(flat.get(TEACHER, {}))
    return deep_merge(flat, {TEACHER: dotted})


def trainer_names(value: Union[str, list[str], None]) -> list[str]:
    """The registered names that ``trainer:`` asks for; empty where it names none.

    A string may hold a list, as the command line gives one: ``[FreqD,FD]``.

    Raises:
        ConfigError: An unknown or repeated name.
    """
    if isinstance(value, str):
        value = [name.strip(" '\"") for name in value.strip("[] ").split(",")]
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    given = [name for name in given if not _is_none(name)]
    names = [LOSSES.canonical(name) for name in given]
    if len(set(names)) < len(names):
        raise ConfigError(f"trainer: {names} names a loss twice. Allowed: each at most once.")
    return names


def _is_none(name: Any) -> bool:
    return name is None or (isinstance(name, str) and name.lower() in ("none", "null", ""))


def complete(
    external: dict[str, Any], internal: dict[str, Any], categories: dict[str, list[str]]
) -> dict[str, Any]:
    """Checks everything the user set and returns the defaults of the trainers named.

    Args:
        external: What the user gave (files, dict, command line), folded; ``trainer`` and checked
            values are put in their canonical form in place.
        internal: RecBole's defaults for this model and dataset.
        categories: RecBole's names of keys by category (``config.parameters``).

    Returns:
        Default of every key of every trainer named; empty where none is named.

    Raises:
        ConfigError: Misspelt or unknown keys of ours, values out of range, contradictions, no
            teacher or two forms of one.
    """
    hosts = set(internal).union(*categories.values())
    refuse_misspelt(external, hosts)
    for key, spec in read_keys("run.yaml").items():
        if key in external:
            external[key] = spec.check(external[key])
    names = trainer_names(external.get("trainer"))
    if not names:
        _note_idle(external)
        return {}
    mention_unknown(external, hosts)
    checked = check_host_values({**internal, **external}, internal)
    external.update({key: value for key, value in checked.items() if key in external})
    external["trainer"] = names[0] if len(names) == 1 else names
    defaults: dict[str, Any] = {}
    for name in LOSSES.names():
        checked = _check_method(name, external)
        if name in names:
            defaults.update(checked)
        elif set(checked) & set(external):
            idle = ", ".join(sorted(set(checked) & set(external)))
            logger.warning("%s has no effect: trainer is %s.", idle, external["trainer"])
    check_teacher(external.get(TEACHER), categories)
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
    defaults = complete(given, internal, config.parameters)
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
        Every option, but for those without effect: ``alpha`` beside a coefficient list, and what
        belongs to the mlp beside a linear projector.
    """
    prefix = LOSSES.get(method).prefix
    options = {name[len(prefix) + 1 :]: config[name] for name in method_keys(method)}
    if not isinstance(options.get("filter", ""), str):
        options.pop("alpha", None)
    if options.get("projector") == "linear":
        options = {key: value for key, value in options.items() if key not in _OF_THE_MLP}
    return options


def _check_method(name: str, external: dict[str, Any]) -> dict[str, Any]:
    """Checks the given keys of a method; returns all its defaults."""
    keys, prefix = method_keys(name), LOSSES.get(name).prefix
    given = {key: external[key] for key in keys if key in external}
    for key, value in given.items():
        external[key] = keys[key].check(value)
    LOSSES.get(name).check_options({key[len(prefix) + 1 :]: external[key] for key in given})
    return {key: spec.default for key, spec in keys.items()}


def _note_idle(external: dict[str, Any]) -> None:
    """Without a trainer nothing changes, but what was meant for one is not passed over silently."""
    ours = {key for name in LOSSES.names() for key in method_keys(name)} & set(external)
    if isinstance(external.get(TEACHER), dict):
        ours.add(TEACHER)
    if "trainer" in external:
        external["trainer"] = None
    elif ours:
        logger.warning(
            "%s: no effect, since no trainer is named (unless FreqDTrainer is made by hand).",
            ", ".join(sorted(ours)),
        )


@contextmanager
def no_command_line() -> Iterator[None]:
    """Hides the command line from RecBole's Config, which reads it whoever makes one."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


@contextmanager
def asking_recbole(config: Any = None) -> Iterator[None]:
    """RecBole's errors for a mistake in config or data, of a dozen kinds, become ours.

    Args:
        config: The Config in question, or a dict of what was given; its keys are named.

    Raises:
        ConfigError: RecBole complained; its error is the cause.
    """
    try:
        yield
    except FreqDError:
        raise
    except Exception as error:
        raise recboles_error(error, config) from error


def recboles_error(error: Exception, config: Any = None) -> ConfigError:
    """What to raise in place of an error of RecBole's; see :func:`asking_recbole`."""
    given = getattr(config, "external_config_dict", config) or {}
    keys = f"The keys that were set: {listed(given)}. " if given else ""
    return ConfigError(
        f"RecBole does not accept the config or its data: {type(error).__name__}: "
        f"{shown(str(error))[1:-1]}. {keys}Check the config files, config_dict, command line and "
        "dataset."
    )


def read_config_file(path: Any, loader: Any) -> dict[str, Any]:
    """The keys of a YAML file.

    Args:
        path: The file.
        loader: RecBole's YAML loader.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds no keys but something else.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    except Exception as error:  # of the system, of the encoding, and several of PyYAML
        raise ConfigError(
            f"Config file {shown(path)} cannot be read: {type(error).__name__}: {error}. "
            "It must be a YAML file of `key: value` lines."
        ) from None
    if content is None:
        logger.warning("Config file %s is empty.", path)
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"Config file {shown(path)} holds {shown(content)}; allowed: a YAML file of "
            "`key: value` lines."
        )
    return content


def teacher_config(student: Any, recipe: dict[str, Any]) -> Any:
    """The Config a teacher is built with: the student's world, the recipe's model and training.

    Args:
        student: The student's finished Config.
        recipe: RecBole keys with ``model`` among them, without reserved keys.

    Returns:
        A RecBole Config on the student's device.

    Raises:
        ConfigError: An unknown model, or a key that this model does not have.
    """
    from recbole.config import Config

    model = class_or_name(recipe[RECIPE])
    check_model_name(model, "teacher.model", only_general=True)
    recipe = dict(recipe)
    defaults = check_own_model(model, recipe, f"{TEACHER}.")  # without register() no hook does it
    inherited = _world(student)
    world = {key: value for key, value in inherited.items() if value is not None}
    # Metrics and splits of the student are in their final form already, and fit RecBole's checks.
    # Without register() RecBole would run the strings among them as code.
    given = {f"{TEACHER}.{key}": value for key, value in recipe.items()}
    with no_command_line(), asking_recbole(given), literals_only():
        config = Config(
            model=model,
            dataset=student["dataset"],
            config_dict={
                **defaults,
                **world,
                **{key: recipe[key] for key in recipe if key != RECIPE},
            },
        )
    config.internal_config_dict.update(defaults)
    known = keys_known_to(config)
    for key in recipe:
        if key != RECIPE and key not in known:
            raise ConfigError(
                f"Unknown key {shown(f'teacher.{key}')} for model {recipe[RECIPE]}; "
                f"did you mean 'teacher.{nearest(str(key), sorted(known), 0.0)}'?"
            )
    check_config(config, f"{TEACHER}.")
    check_sampling(config, f"{TEACHER}.")
    adopt_world(config, student)
    return config


def keys_known_to(config: Any) -> set[str]:
    """Keys that RecBole, or the model of a Config, has a use for."""
    known = set(config.internal_config_dict).union(*config.parameters.values())
    return known | keys_read_by(config.model_class)  # some models read more than they list


def _world(student: Any) -> dict[str, Any]:
    """Environment, data, split and evaluation of a student, as its finished Config has them."""
    keys = sorted(inherited_keys(student.parameters))
    return {key: copy.deepcopy(student[key]) for key in keys if key in student}


def adopt_world(config: Any, student: Any) -> None:
    """Puts a teacher's Config into the student's world, exactly, past the evaluation of strings."""
    derived = ("device", "eval_type", "valid_neg_sample_args", "test_neg_sample_args")
    config.final_config_dict.update(_world(student))
    config.final_config_dict.update({key: student[key] for key in derived})
    # One process, and the run on Weights & Biases is the student's.
    config.final_config_dict.update(log_wandb=False, single_spec=True, local_rank=0)


def read_external(
    config_file_list: Optional[list[str]], values: Optional[dict[str, Any]] = None
) -> dict[str, Any]:
    """What the user gives in files, a dict and on the command line, merged as a Config merges it.

    Args:
        config_file_list: YAML files. values: A ``config_dict``, which wins over them.
    """
    from recbole.config import Config

    config = Config.__new__(Config)
    config.yaml_loader = config._build_yaml_loader()
    config.file_config_dict = config._load_config_files(config_file_list)
    config.variable_config_dict = dict(values or {})
    config.cmd_config_dict = config._load_cmd_line()
    config._merge_external_config_dict()
    return config.external_config_dict
