"""Search spaces: the YAML files of ``properties/search/``, checked, and what a trial draws of them.

A line is ``key: {loguniform: [low, high]}``, ``key: {uniform: [low, high]}`` or
``key: {choice: [a, b, ...]}``. ``student.yaml`` is for every student, alone or distilled,
``<Method>.yaml`` beside it for those the method teaches, ``teacher.yaml`` for a teacher that is
trained, ``<Model>.yaml`` beside these two for what a model has of its own. A file of the user's has
the same lines under the headings ``student``, ``teacher`` and the methods' names; they are added to
the shipped ones or replace them, and ``key: null`` takes one out.
"""

import math
import random
from dataclasses import dataclass
from typing import Any, Optional

from recbole_freqd.core.errors import ConfigError, did_you_mean
from recbole_freqd.core.files import parse_yaml, read_yaml
from recbole_freqd.core.schema import is_number, method_keys, properties_folder
from recbole_freqd.jobs.fairness import NOT_SEARCHED, OF_THE_TEACHER
from recbole_freqd.losses import LOSSES

STUDENT, TEACHER, ALONE, WARM = "student", "teacher", "alone", "warm"
# Numbers of any kind that RecBole has a whole one for: of SimpleX, AsymKNN, NNCF and DiffRec.
_REAL = frozenset({"negative_weight", "q", "resolution", "w_max"})
_BLOCK = 8  # trials that share out the range of a key
_NUMBERS = {"loguniform": 2, "uniform": 2, "quniform": 3}  # low, high, step


@dataclass(frozen=True)
class Rule:
    """How the values of one key are drawn.

    Attributes:
        kind: ``loguniform``, ``uniform`` or ``choice``; or ``quniform``, which hyperopt draws.
        values: Two limits (and a step), or what there is to choose from.
    """

    kind: str
    values: tuple[Any, ...]

    def at(self, place: float) -> Any:
        """The value at a place from 0 to 1; numbers of a range have three significant digits."""
        if self.kind == "choice":
            return self.values[int(place * len(self.values))]
        low, high = self.values
        if self.kind == "uniform":
            drawn = low + place * (high - low)
        else:
            drawn = math.exp(math.log(low) + place * math.log(high / low))
        return min(max(float(f"{drawn:.3g}"), low), high)

    def as_yaml(self) -> dict[str, list[Any]]:
        """The rule as it is written in a file."""
        return {self.kind: list(self.values)}


Space = dict[str, Rule]


def read_rule(line: Any, kinds: tuple[str, ...]) -> Optional[Rule]:
    """The rule that a line of a YAML file spells, ``{kind: [...]}``; None where it spells none.

    Args:
        line: What the file has for a key.
        kinds: What is allowed there.

    Example:
        >>> read_rule({"uniform": [0, 1]}, ("uniform", "choice"))
        Rule(kind='uniform', values=(0, 1))
    """
    kind, values = next(iter(line.items())) if isinstance(line, dict) and line else (None, None)
    if kind not in kinds or len(line) > 1 or not isinstance(values, list) or not values:
        return None
    if kind != "choice":
        if len(values) != _NUMBERS[kind] or not all(map(is_number, values)):
            return None
        if not values[0] < values[1] or (kind == "loguniform" and values[0] <= 0):
            return None
    return Rule(kind, tuple(values))


def draw(space: Space, trial: int) -> dict[str, Any]:
    """The keys of a trial, by nested Latin hypercube sampling in blocks of eight trials.

    Trials 0 to 7, and every eight after them, have one value of each key in each eighth of its
    range, every four of them one in each quarter and every two one in each half: few trials drawn
    independently would often leave out what matters (all of a learning rate's upper half, say), and
    so would the first few of an eight. A function of the number of the trial and the name of the
    key alone: an interrupted search goes on where it was, a longer one contains the shorter, and a
    key that several spaces share has the same value in all of them, so that no method is lucky in
    its learning rates. Keys that differ in the method's prefix only, as ``freqd_beta`` and
    ``fd_beta``, fall on the same place of their ranges, unless they are of one space
    (``FreqD+FD``).

    Source: McKay, Beckman & Conover, "A Comparison of Three Methods for Selecting Values of Input
        Variables", Technometrics 21 (1979); Qian, "Nested Latin Hypercube Designs", Biometrika 96
        (2009).

    Example:
        >>> rate = {"learning_rate": Rule("loguniform", (0.001, 0.01))}
        >>> one, other = draw(rate, 3), draw({"k": Rule("choice", (5, 10)), **rate}, 3)
        >>> one["learning_rate"] == other["learning_rate"]
        True
    """
    prefixes = tuple(f"{LOSSES.get(name).prefix}_" for name in LOSSES.names())

    shared: dict[str, str] = {}
    for key in space:
        shared.setdefault(key.partition("_")[2] if key.startswith(prefixes) else key, key)

    def place(key: str) -> float:
        name = next((name for name, first in shared.items() if first == key), key)
        source = random.Random(f"{name} {trial // _BLOCK}")
        eighths = _order_of_eighths(source)
        within = [source.random() for _ in range(_BLOCK)]
        return (eighths[trial % _BLOCK] + within[trial % _BLOCK]) / _BLOCK

    return {key: rule.at(place(key)) for key, rule in space.items()}


def _order_of_eighths(source: random.Random) -> list[int]:
    """0 to 7 at random; every two have one of each half, every four one of each quarter."""
    halves = []
    for base in (0, 4):
        quarters = [source.sample([low, low + 1], 2) for low in (base, base + 2)]
        halves.append([eighth for two in zip(*quarters) for eighth in source.sample(two, 2)])
    return [eighth for pair in zip(*halves) for eighth in source.sample(pair, 2)]


def space_of(
    methods: list[str], own: Optional[dict[str, Any]] = None, model: Optional[str] = None
) -> Space:
    """The space of a student: what all students search, its model and its methods add.

    Args:
        methods: Names of losses; none for the student alone.
        own: The user's sections, from :func:`read_own`.
        model: Its name; None: of any.

    Raises:
        ConfigError: A file is missing or not of the documented form.
    """
    space = _section(STUDENT, own or {}, model)
    for method in methods:
        space.update(_section(method, own or {}))
    return space


def teacher_space(
    closed_form: bool, own: Optional[dict[str, Any]] = None, model: Optional[str] = None
) -> Space:
    """The space of a teacher; of one that is computed and not trained, what the user gives."""
    own = own or {}
    if closed_form:
        return _read(own.get(TEACHER) or {}, TEACHER, "the search file")
    return _section(TEACHER, own, model)


def refuse_fractions(space: Space, defaults: dict[str, Any], what: str) -> None:
    """Raises ConfigError where fractions would be drawn of a key of RecBole's that has an int.

    Args:
        space: Of a student or teacher.
        defaults: RecBole's, for its model.
        what: Is searched.
    """
    for key, rule in space.items():
        if rule.kind != "choice" and is_whole(key, defaults):
            raise ConfigError(
                f"Search space of {what}: {key}: got {rule.as_yaml()}, but it is a whole number "
                f"(default {defaults[key]}). Allowed: {key}: {{choice: [a, b, ...]}}, in the file "
                "that --search names."
            )


def is_whole(key: str, defaults: dict[str, Any]) -> bool:
    """Whether a key of RecBole's takes whole numbers only, going by its default.

    Args:
        key: Ours are never: their values are checked as they are.
        defaults: RecBole's, for a model.
    """
    if type(defaults.get(key)) is not int or key in _REAL:
        return False
    return all(key not in method_keys(name) for name in LOSSES.names())


def read_own(file: Optional[str]) -> dict[str, Any]:
    """A search file of the user's, by section.

    Raises:
        ConfigError: It is missing, no YAML, or has a section for what does not exist.
    """
    if file is None:
        return {}
    sections = read_yaml(file, "--search")
    allowed = [STUDENT, TEACHER, *LOSSES.names()]
    for name, lines in sections.items():
        if name not in allowed:
            raise ConfigError(f"{file}: unknown section {name!r}. {did_you_mean(name, allowed)}")
        _read(lines or {}, name, file)
    return sections


def _section(name: str, own: dict[str, Any], model: Optional[str] = None) -> Space:
    """The shipped lines of a section, with those of a model and the user's over them."""
    file = properties_folder() / "search" / f"{name}.yaml"
    if file.is_file():
        lines = parse_yaml(file.read_text(encoding="utf-8"))
    elif name in own:
        lines = {}
    else:
        raise ConfigError(
            f"properties/search/{name}.yaml does not exist: nothing says what of {name} is to be "
            f"searched. Give a section {name} in a file, and the file with --search."
        )
    space = _read(lines, name, f"properties/search/{name}.yaml")
    of_model = properties_folder() / "search" / f"{model}.yaml"
    if of_model.is_file():
        more = parse_yaml(of_model.read_text(encoding="utf-8"))
        space.update(_read(more, name, str(of_model)))
    mine = own.get(name) or {}
    space.update(_read(mine, name, "the search file"))
    return {key: rule for key, rule in space.items() if key not in mine or mine[key] is not None}


def _read(lines: dict[str, Any], section: str, file: str) -> Space:
    """The rules of a section; a key that is null has none.

    Raises:
        ConfigError: A line is not of the documented form, or about a key that is not searched here.
    """
    if not isinstance(lines, dict):
        raise ConfigError(f"{file}: {section} holds {lines!r}; allowed: keys with their ranges.")
    for key in lines:
        _check_key(key, section, file)
    return {key: _rule(key, line, section, file) for key, line in lines.items() if line is not None}


def _check_key(key: str, section: str, file: str) -> None:
    if key in NOT_SEARCHED - (OF_THE_TEACHER if section == TEACHER else set()):
        raise ConfigError(
            f"{file}: {key} cannot be searched: it is the same for everything that is compared. "
            "Set it in the config."
        )
    if section in (STUDENT, TEACHER):
        return
    known = method_keys(section)
    if key not in known:
        raise ConfigError(f"{file}: {section} has no key {key!r}. {did_you_mean(key, known)}")


def _rule(key: str, line: Any, section: str, file: str) -> Rule:
    rule = read_rule(line, ("loguniform", "uniform", "choice"))
    if rule is None:
        raise ConfigError(
            f"{file}: {key}: got {line!r}; allowed: {{loguniform: [low, high]}} with 0 < low < "
            "high, {uniform: [low, high]} or {choice: [a, b, ...]}."
        )
    if section not in (STUDENT, TEACHER):
        checked = list(rule.values)  # the message of a value out of range names key and meaning
        if rule.kind != "choice":  # a whole number where another would be drawn between the limits
            checked.append(checked[0] + (checked[1] - checked[0]) / math.e)
        for value in checked:
            method_keys(section)[key].check(value)
    return rule
