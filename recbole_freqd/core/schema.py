"""The keys of ``properties/``: default, type, range and meaning of each, read from one line.

A line is ``key: value  # (type, range) meaning``. Types are ``int``, ``float``, ``bool``, ``str``,
``null``, ``dict``, ``list``, ``list of float`` (or ``int``, or ``str``), or a word that stands for
itself (``linear or quadratic``); the range of a number is an interval (``[0, 1)``) or a bound
(``>= 1``) and may be absent. A line of the type ``default`` in a method's file is no key of that
method: it says what a key of the run is, with this trainer, where the user says nothing.
"""

import difflib
import math
import numbers
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, Union, cast

from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr
from recbole_freqd.core.files import parse_yaml

_PYTHON: dict[str, Any] = {
    "null": None,
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
    "list of float": list[float],
    "list of int": list[int],
    "list of str": list[str],
}
_LINE = re.compile(r"^(?P<key>\w+):\s*(?P<value>.*?)\s*#\s*\((?P<spec>.*?)\)\s+(?P<meaning>.+)$")
_INTERVAL = re.compile(r"^([\[(])\s*([-\d.]+)\s*,\s*([-\d.]+)\s*([\])])$")
_OF_THE_RUN = ("default",)
_BOUND = re.compile(r"^(>=|>)\s*([-\d.]+)$")


def properties_folder() -> Path:
    """The folder of the YAML files: inside the installed package, else beside it (a checkout)."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "properties", here.parent / "properties"):
        if (folder / "trainer").is_dir():
            return folder
    raise ConfigError(
        f"The folder properties/ is neither in {here} nor beside it: the installation is broken. "
        "Install again with `pip install --force-reinstall recbole_freqd`."
    )


def _relative(file: str) -> Path:
    """The file below ``properties/``; an absolute path as it is."""
    return Path("properties", file)


@dataclass(frozen=True)
class Key:
    """One config key: its name, its allowed values, and its default."""

    name: str
    default: Any
    types: tuple[str, ...]
    range: str
    meaning: str
    file: str

    @property
    def allowed(self) -> str:
        """The types and the range in words, e.g. ``float in [0, 1]``."""
        words = " or ".join(self.types)
        if not self.range:
            return words
        return f"{words} in {self.range}" if self.range[0] in "[(" else f"{words} {self.range}"

    @property
    def annotation(self) -> Any:
        """The types in Python's words, e.g. ``Optional[int]`` or ``Literal['mlp', 'linear']``."""
        words = tuple(kind for kind in self.types if kind not in _PYTHON)
        kinds = [_PYTHON[kind] for kind in self.types if kind in _PYTHON]
        if words:
            kinds.insert(0, cast(Any, Literal)[words])
        return cast(Any, Union)[tuple(kinds)]

    def check(self, value: Any) -> Any:
        """Returns ``value`` if it is allowed (an int where a float is due becomes one).

        Raises:
            ConfigError: Wrong type, not finite, or out of range.
        """
        for kind in self.types:
            accepted, value_as_kind = _read_as(kind, value)
            if accepted and self._in_range(value_as_kind):
                return value_as_kind
        raise ConfigError(
            f"{self.name}: got {short_repr(value)}; allowed: {self.allowed}. "
            f"Meaning: {self.meaning} (see {_relative(self.file)}). "
            f"Change it in the config file, config_dict or with --{self.name}=..."
        )

    def _in_range(self, value: Any) -> bool:
        if not self.range or isinstance(value, (str, bool, list, dict)) or value is None:
            return True
        bound = _BOUND.match(self.range)
        if bound:
            limit = float(bound.group(2))
            return value >= limit if bound.group(1) == ">=" else value > limit
        interval = _INTERVAL.match(self.range)
        if not interval:
            raise ConfigError(f"{_relative(self.file)}: {self.name} has no readable range.")
        low, high = float(interval.group(2)), float(interval.group(3))
        above = value >= low if interval.group(1) == "[" else value > low
        below = value <= high if interval.group(4) == "]" else value < high
        return above and below


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, NumPy's included, that a float can hold.

    Example:
        >>> is_number(1), is_number(0.5), is_number(True), is_number(math.nan)
        (True, True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of hundreds of digits
        return False


def _read_as(kind: str, value: Any) -> tuple[bool, Any]:
    """Whether ``value`` is of ``kind``, and the value in that type."""
    if kind == "null":
        return value is None or (isinstance(value, str) and value.lower() in ("none", "null")), None
    if kind == "float":
        return (True, float(value)) if is_number(value) else (False, value)
    if kind == "int":
        whole = is_number(value) and int(value) == value
        return (True, int(value)) if whole else (False, value)
    if kind == "bool":
        return isinstance(value, bool), value
    if kind == "dict":
        return isinstance(value, dict), value
    if kind == "str":
        return isinstance(value, str), value
    if kind.partition(" ")[0] == "list":
        return _read_as_list(kind, value)
    word = "none" if value is None else value  # the command line reads the one as the other
    return (True, kind) if isinstance(word, str) and word.lower() == kind else (False, value)


def _read_as_list(kind: str, value: Any) -> tuple[bool, Any]:
    """The same for ``list``, and for ``list of float`` and its like, which are not empty."""
    if not isinstance(value, (list, tuple)):
        return False, value
    element = kind.partition(" of ")[2]
    if not element:
        return True, list(value)
    read = [_read_as(element, part) for part in value]
    good = len(read) > 0 and all(accepted for accepted, _ in read)
    return (True, [part for _, part in read]) if good else (False, value)


@cache
def read_keys(file: str) -> dict[str, Key]:
    """The keys of one file of ``properties/``, by name, in the order of the file.

    Those of lines marked ``(default)`` are not among them: see :func:`run_defaults`.

    Args:
        file: Path below ``properties/``, e.g. ``"trainer/FreqD.yaml"``, or an absolute one.

    Raises:
        ConfigError: The file is missing, or a line is not of the documented form.
    """
    return {name: key for name, key in _read_lines(file).items() if key.types != _OF_THE_RUN}


@cache
def _read_lines(file: str) -> dict[str, Key]:
    """Every line of one file of ``properties/``, whatever it is marked as."""
    path = properties_folder() / file
    if not path.is_file():
        raise ConfigError(f"{_relative(file)} does not exist.")
    keys = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if not match:
            raise ConfigError(f"{_relative(file)}: not `key: value  # (type) meaning`: {line!r}")
        words, _, limits = match["spec"].partition(", ")
        key = Key(
            name=match["key"],
            default=parse_yaml(match["value"]),
            types=tuple(words.split(" or ")),
            range=limits.strip(),
            meaning=match["meaning"],
            file=file,
        )
        keys[key.name] = key
    return keys


_OWN_FILES: dict[str, str] = {}


def own_method(method: str, file: Union[str, Path]) -> None:
    """Names the file with the keys of your own method; see ``docs/plugging_in.md``.

    Args:
        method: Its name in ``trainer:``.
        file: Lines of the form of ``properties/trainer/``.

    Raises:
        ConfigError: The file is missing, or a line is not of the documented form.
    """
    path = str(Path(file).resolve())
    read_keys(path)
    _OWN_FILES[method] = path


def method_keys(method: str) -> dict[str, Key]:
    """The keys of a distillation method (``properties/trainer/<method>.yaml``), by full name.

    Example:
        >>> method_keys("FreqD")["freqd_alpha"].allowed
        'float in [0, 1]'
    """
    return read_keys(_OWN_FILES.get(method, f"trainer/{method}.yaml"))


def run_defaults(method: str) -> dict[str, Any]:
    """What keys of the run are with a trainer where the user says nothing, by full name.

    Example:
        >>> run_defaults("FreqRank")
        {'teacher_filter': 'auto', 'weight_average': 0.15, 'warm_start': 'lists'}
        >>> run_defaults("RCE-KD")
        {}
    """
    lines = _read_lines(_OWN_FILES.get(method, f"trainer/{method}.yaml"))
    return {name: key.default for name, key in lines.items() if key.types == _OF_THE_RUN}


def resolve(method: str, prefix: str, options: dict[str, Any]) -> dict[str, Any]:
    """Checks the options of a method and fills in the defaults.

    Args:
        method: Name of the method, e.g. ``"FreqD"``.
        prefix: Its key prefix without the underscore, e.g. ``"freqd"``.
        options: Given values by name *without* prefix.

    Returns:
        Every option of the method by name without prefix.

    Raises:
        ConfigError: An unknown option, or a value that is not allowed.

    Example:
        >>> resolve("FTD", "ftd", {}), resolve("FTD", "ftd", {"beta": 2})
        ({'beta': 10.0}, {'beta': 2.0})
    """
    keys = {name[len(prefix) + 1 :]: key for name, key in method_keys(method).items()}
    for name in options:
        if name not in keys:
            raise ConfigError(f"{method} has no option {name!r}. {did_you_mean(name, keys)}")
    return {name: key.check(options.get(name, key.default)) for name, key in keys.items()}


def nearest(name: Any, known: list[str], cutoff: float = 0.85) -> Optional[str]:
    """Finds the known name that ``name`` probably misspells, or None.

    Example:
        >>> nearest("freqd_alhpa", ["freqd_alpha", "freqd_beta"]), nearest("epochs", ["freqd_beta"])
        ('freqd_alpha', None)
    """
    near = difflib.get_close_matches(str(name)[:100].lower(), known, n=1, cutoff=cutoff)
    return near[0] if near else None
