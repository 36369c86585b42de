"""Makes Configs: of the student's keys, of changed keys, of a teacher's recipe."""

import copy
from typing import Any, Optional

from recbole_freqd.compat.literals import literals_only, strings_as_they_are
from recbole_freqd.config.models import (
    check_model_name,
    check_own_model,
    class_or_name,
    keys_read_by,
)
from recbole_freqd.config.names import TEACHER, teaching_keys
from recbole_freqd.config.reading import (
    asking_recbole,
    check_everything,
    no_command_line,
    read_given,
)
from recbole_freqd.config.teacher import RECIPE, inherited_keys
from recbole_freqd.config.values import check_config, check_training
from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.core.schema import method_keys, nearest
from recbole_freqd.losses import LOSSES


def make_config(
    model: Optional[str],
    dataset: Optional[str],
    files: Optional[list[str]],
    values: Optional[dict[str, Any]],
) -> Any:
    """Makes RecBole's Config of what the user gives, read once and checked once.

    Args:
        model, dataset: Their names; None: as the keys say.
        files: YAML files.
        values: A ``config_dict``; a :class:`recbole_freqd.config.reading.Given` is all there is,
            and neither files nor the command line are read again.

    Raises:
        ConfigError: RecBole or we do not accept it.
    """
    given = read_given(files, values)
    config = _made(model, dataset, given)
    config.cmd_config_dict = dict(given.command_line)  # what nobody else may choose
    return config


def _made(model: Any, dataset: Optional[str], keys: dict[str, Any]) -> Any:
    """A Config of keys that have been read, with every check; its complaints are ours."""
    from recbole.config import Config

    with no_command_line(), strings_as_they_are(), check_everything(), asking_recbole(keys):
        return Config(model, dataset, config_dict=dict(keys))


def config_with(config: Any, methods: list[str], **changes: Any) -> Any:
    """Makes the Config of the same student with other methods, or with none.

    Args:
        config: A Config with the keys of all of them.
        methods: Names of losses; the keys of the others are left out, and without any the teacher.
        **changes: Keys that are to be others.

    Raises:
        ConfigError: A value is not allowed.
    """
    ours = {key for name in LOSSES.names() if name not in methods for key in method_keys(name)}
    ours |= {"trainer"} | (set() if methods else {TEACHER, *teaching_keys()})
    kept = {
        key: copy.deepcopy(value)
        for key, value in config.external_config_dict.items()
        if key not in ours
    }
    if methods:
        kept["trainer"] = methods
    kept.update(copy.deepcopy(changes))
    return _made(config.model_class, config["dataset"], kept)


def alone_config(config: Any) -> Any:
    """Makes the Config of the same student without its teacher and without our keys."""
    return config_with(config, [])


def with_keys(config: Any, keys: dict[str, Any]) -> Any:
    """The Config again with some keys of it changed; ``teacher.x`` changes one of the teacher's.

    Raises:
        ConfigError: A key or a value is not allowed.
    """
    given = copy.deepcopy(config.external_config_dict)
    return _made(config.model_class, config["dataset"], {**given, **keys})


def teacher_config(student: Any, recipe: dict[str, Any]) -> Any:
    """Makes a teacher's Config: the student's world, the recipe's model and training.

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
                f"Unknown key {short_repr(f'teacher.{key}')} for model {recipe[RECIPE]}; "
                f"did you mean 'teacher.{nearest(str(key), sorted(known), 0.0)}'?"
            )
    check_config(config, f"{TEACHER}.")
    check_training(config, f"{TEACHER}.")
    adopt_world(config, student)
    return config


def keys_known_to(config: Any) -> set[str]:
    """Lists the keys that RecBole, or the model of a Config, reads."""
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
