"""Reads keys from config files, dotted keys and the command line; explains RecBole's errors."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any, Optional

import yaml

from recbole_freqd.compat.literals import literals_only
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import DottedKeys, merge_teachers
from recbole_freqd.core.errors import ConfigError, FreqDError, join_names, short_repr

_check_all: ContextVar[bool] = ContextVar("check_all", default=False)
logger = logging.getLogger(__name__)


class Given(dict[str, Any]):
    """The user's keys from files, a dict and the command line: read, merged, folded.

    Who gets one reads nothing again, neither files nor ``sys.argv``.

    Attributes:
        command_line: The keys that the command line gave, folded.
        of_the_job: Keys that the user did not give, and the job has set.
    """

    def __init__(
        self,
        keys: dict[str, Any],
        command_line: Optional[dict[str, Any]] = None,
        of_the_job: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(keys)
        self.command_line, self.of_the_job = dict(command_line or {}), of_the_job

    def with_keys(self, keys: dict[str, Any]) -> "Given":
        """The same with some keys changed."""
        return Given({**self, **keys}, self.command_line, self.of_the_job)


def deep_merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """``low`` updated by ``high``, where a nested ``teacher`` is merged instead of replaced.

    A list of teachers is replaced by a higher one, and changed by higher dotted keys.
    """
    merged = {**low, **high}
    if TEACHER in high:
        merged[TEACHER] = merge_teachers(low.get(TEACHER), high[TEACHER])
    return merged


def fold_dotted(keys: dict[str, Any]) -> dict[str, Any]:
    """``{"teacher.model": "BPR"}`` becomes ``{"teacher": {"model": "BPR"}}``.

    Raises:
        ConfigError: ``teacher`` is given beside dotted keys, but not as nested keys; or as a list,
            and they do not say which of its entries they are of.

    Example:
        >>> fold_dotted({"teacher": {"model": "BPR"}, "teacher.embedding_size": 64, "epochs": 5})
        {'teacher': {'model': 'BPR', 'embedding_size': 64}, 'epochs': 5}
    """
    flat = {name: value for name, value in keys.items() if not str(name).startswith(f"{TEACHER}.")}
    dotted = {name[len(TEACHER) + 1 :]: value for name, value in keys.items() if name not in flat}
    if not dotted:
        return flat
    return deep_merge(flat, {TEACHER: DottedKeys(dotted)})


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
            f"Config file {short_repr(path)} cannot be read: {type(error).__name__}: {error}. "
            "It must be a YAML file of `key: value` lines."
        ) from None
    if content is None:
        logger.warning("Config file %s is empty.", path)
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"Config file {short_repr(path)} holds {short_repr(content)}; allowed: a YAML file of "
            "`key: value` lines."
        )
    return content


def read_given(
    config_file_list: Optional[list[str]], values: Optional[dict[str, Any]] = None
) -> Given:
    """What the user gives in files, a dict and on the command line, merged as a Config merges it.

    Args:
        config_file_list: YAML files.
        values: A ``config_dict``, which wins over them; a :class:`Given` is returned as it is.

    Raises:
        ConfigError: A file or the command line cannot be read.
    """
    from recbole.config import Config

    if isinstance(values, Given):
        return values
    with asking_recbole(values), literals_only(), check_everything():
        config = Config.__new__(Config)
        config.yaml_loader = config._build_yaml_loader()
        config.file_config_dict = config._load_config_files(config_file_list)
        # A copy: RecBole changes in place what it is given.
        config.variable_config_dict = config._load_variable_config_dict(dict(values or {}))
        config.cmd_config_dict = config._load_cmd_line()
        config._merge_external_config_dict()
    return Given(config.external_config_dict, fold_dotted(config.cmd_config_dict))


def paths_as_text(value: Any) -> Any:
    """The same with every ``pathlib`` path as text, which RecBole and a checkpoint can hold.

    Example:
        >>> paths_as_text({"data_path": Path("data"), "files": [Path("a"), 5]})
        {'data_path': 'data', 'files': ['a', 5]}
    """
    if isinstance(value, PurePath):
        return os.fspath(value)
    if isinstance(value, dict):
        return type(value)((key, paths_as_text(part)) for key, part in value.items())
    if type(value) in (list, tuple):
        return type(value)(map(paths_as_text, value))
    return value


@contextmanager
def check_everything() -> Iterator[None]:
    """While open, this package checks every Config that is made, whatever it names."""
    before = _check_all.set(True)
    try:
        yield
    finally:
        _check_all.reset(before)


def is_everything_checked() -> bool:
    """Whether :func:`check_everything` is open."""
    return _check_all.get()


@contextmanager
def no_command_line() -> Iterator[None]:
    """Hides the command line from RecBole's Config, which always reads it."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


@contextmanager
def asking_recbole(config: Any = None) -> Iterator[None]:
    """Turns RecBole's errors about config or data, of a dozen kinds, into ours.

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
    keys = f"The keys that were set: {join_names(given)}. " if given else ""
    return ConfigError(
        f"RecBole does not accept the config or its data: {type(error).__name__}: "
        f"{short_repr(str(error))[1:-1]}. {keys}Check the config files, config_dict, command line "
        "and dataset."
    )
