"""The exceptions. Each message says what came, what is allowed and where to change it."""

import difflib
import importlib
import reprlib
from collections.abc import Iterable
from typing import Any

_LONGEST = 200


class FreqDError(Exception):
    """Base of the errors that this package raises for mistakes that a user can correct."""


class CompatibilityError(FreqDError):
    """This package cannot run on the installed RecBole, or on a package below it."""


class ConfigError(FreqDError, ValueError):
    """A config key is unknown, misspelt, missing, contradictory or out of its range."""


class CheckpointError(FreqDError):
    """A checkpoint is missing, unreadable, or holds something that is not allowed in one."""


class TeacherError(FreqDError):
    """The teacher does not fit the student's data, or has nothing to teach."""


class TrainingError(FreqDError):
    """Training cannot go on."""


def short_repr(value: Any) -> str:
    """Shows a value in a message: its ``repr``, cut if it is long.

    Example:
        >>> short_repr("5"), len(short_repr("x" * 10_000)) <= 200
        ("'5'", True)
    """
    try:
        text = repr(value)
    except Exception:  # an int of more than 4,300 digits, an object with a broken __repr__
        text = reprlib.repr(type(value))
    # Also in a log that cannot write every character: lone surrogates come from the command line.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}...{text[-10:]}"


def join_names(keys: Iterable[Any], most: int = 30) -> str:
    """Joins names by commas, at most so many.

    Example:
        >>> join_names(["epochs", "topk"]), join_names(range(5), most=2)
        ('epochs, topk', '0, 1, ...')
    """
    names = [short_repr(str(key))[1:-1] for key in keys]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Ends a message with the nearest known name and the whole list.

    Example:
        >>> did_you_mean("linaer", ["linear", "mlp"])
        "Did you mean 'linear'? Allowed: linear, mlp."
    """
    names = sorted(known, key=str.lower)
    lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(short_repr(name).strip("'").lower(), lower, n=1, cutoff=0.5)
    hint = f"Did you mean {lower[near[0]]!r}? " if near else ""
    return f"{hint}Allowed: {', '.join(names)}."


def require(package: str, extra: str, what: str) -> None:
    """Raises ConfigError, with how to install it, where a package cannot be imported.

    Args:
        package: As it is imported.
        extra: Of setup.py, which brings it.
        what: What is to be done with it, as the message begins.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the package {package}, which cannot be imported ({error}): "
            f'pip install "recbole_freqd[{extra}]", or in a checkout pip install -e ".[{extra}]".'
        ) from error
