"""Strings of a config are read as Python literals: RecBole would run them as code.

RecBole passes every string of its ``config_dict`` and of the command line through ``eval``, and the
lists in HyperTuning's files as well.
"""

import ast
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole_freqd.compat import Patches
from recbole_freqd.core.errors import ConfigError


def literal(text: str) -> Any:
    """Reads a literal; it replaces ``eval`` in RecBole's Config.

    Raises:
        NameError: It is no literal. RecBole then takes ``true`` and ``false`` in any spelling for
            what they say, and anything else for the string it is.

    Example:
        >>> literal("[64, 32]"), literal("1e-3"), literal("None")
        ([64, 32], 0.001, None)
        >>> literal("10-3")
        Traceback (most recent call last):
        ...
        NameError: '10-3' is no literal
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. a backslash in a quoted path
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise NameError(f"{reprlib.repr(text)} is no literal") from None


def value_of(value: Any) -> Any:
    """A value as RecBole's Config reads it: a string is the literal it spells, or itself.

    Example:
        >>> value_of("1e-3"), value_of("TRUE"), value_of("adam"), value_of(5)
        (0.001, True, 'adam', 5)
    """
    if not isinstance(value, str):
        return value
    try:
        read = literal(value)
    except NameError:
        return {"true": True, "false": False}.get(value.lower(), value)
    known = read is None or isinstance(read, (str, int, float, list, tuple, dict, bool))
    return read if known else value


def _choices(text: str) -> Any:
    """The same for the lists in the file of HyperTuning, where nothing but a list will do.

    Raises:
        ConfigError: It is no literal.
    """
    try:
        return literal(text)
    except NameError as error:
        raise ConfigError(
            f"params_file: {error}; allowed after `choice`: a list of numbers and quoted strings, "
            "e.g. [0.1, 0.01] or ['[64,32]', '[32]']. Change it in the file."
        ) from None


def hook_eval(patches: Patches) -> None:
    """Puts the readers of literals where RecBole calls ``eval``.

    A global name in a module goes before the builtin, so nothing of RecBole's has to be copied.
    """
    from recbole.config import configurator
    from recbole.trainer import hyper_tuning

    patches.set(configurator, "eval", literal)
    patches.set(hyper_tuning, "eval", _choices)


@contextmanager
def literals_only() -> Iterator[None]:
    """While open, a Config reads its strings as literals, :func:`register` or not."""
    patches = Patches()
    hook_eval(patches)
    try:
        yield
    finally:
        patches.undo()


@contextmanager
def strings_as_they_are() -> Iterator[None]:
    """While open, a Config leaves its strings unread: they have been read before."""
    from recbole.config import Config

    patches = Patches()
    patches.set(Config, "_convert_config_dict", lambda _self, values: values)
    try:
        yield
    finally:
        patches.undo()
