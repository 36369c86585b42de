"""Search spaces for RecBole's HyperTuning: its own files, or YAML in natural units.

A ``.hyper`` file is read by RecBole: ``key choice [0.1,0.3]``, ``key uniform 0,1``, ``key quniform
1,10,1``, ``key loguniform -8,-4`` (the limits are logarithms there). A ``.yaml`` file has lines
``key: {choice: [0.1, 0.3]}``, ``{uniform: [0, 1]}``, ``{quniform: [1, 10, 1]}`` or
``{loguniform: [0.0003, 0.02]}``, where the limits are what they say. A name without a folder and an
ending is a space that is shipped: ``FreqD`` is the grid ``properties/hyper/FreqD.yaml`` where the
search is exhaustive, else the ranges of ``properties/search/FreqD.yaml``.
"""

import math
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml

from recbole_freqd.compat.literals import literal
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.make import keys_known_to, with_keys
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import recipe_of
from recbole_freqd.core.errors import ConfigError, did_you_mean
from recbole_freqd.core.files import parse_yaml
from recbole_freqd.core.schema import method_keys, properties_folder
from recbole_freqd.jobs.fairness import check_varied
from recbole_freqd.jobs.tuning.frozen import refuse_fixed
from recbole_freqd.jobs.tuning.space import is_whole, read_rule
from recbole_freqd.teacher.recipe import recipe_config

_TEACHERS = f"{TEACHER}."  # begins the keys of its recipe
_SAMPLES = 32  # of a range that are looked at
_SHIPPED = ("search", "hyper")


class Space:
    """What is searched: hyperopt's expressions by key.

    Args:
        files: Paths, or names of shipped spaces; a later one wins where two have a key.
        algo: How it is searched.

    Attributes:
        nodes: hyperopt's expressions by key.
        text: The files as they are, for whether a search is still the same.

    Raises:
        ConfigError: No such file, or not of the documented form.
    """

    def __init__(self, files: list[str], algo: str) -> None:
        from recbole.trainer import HyperTuning

        self.nodes: dict[str, Any] = {}
        self._of_teacher: Optional[dict[str, Any]] = None
        self.text = ""
        self.algo = algo
        for file in (_find(name, algo) for name in files):
            content = file.read_text(encoding="utf-8")
            try:
                if file.suffix in (".yaml", ".yml"):
                    nodes = HyperTuning._build_space_from_dict(_by_kind(content, file))
                else:
                    nodes = HyperTuning._build_space_from_file(str(file))
            except (ValueError, TypeError, IndexError) as error:
                raise ConfigError(
                    f"{file}: {error}. Allowed: `key choice [a,b]`, `key uniform low,high`, `key "
                    "quniform low,high,step` and `key loguniform low,high` (logarithms), or YAML."
                ) from error
            self.text += content
            self.nodes.update(nodes)
        if not self.nodes:
            raise ConfigError(f"tune: {', '.join(files)} names no key to search.")

    @property
    def choices(self) -> dict[str, int]:
        """How many values there are to choose from, of the keys with ``choice``."""
        return {
            key: len(node.pos_args) - 1 for key, node in self.nodes.items() if node.name == "switch"
        }

    @property
    def size(self) -> int:
        """Number of combinations, where every key is a choice."""
        return math.prod(self.choices.values())

    def check(self, config: Any) -> None:
        """Looks at every key and value before the first trial.

        Args:
            config: What is tuned.

        Raises:
            ConfigError: Keys that are not searched, that nobody reads, or that are fixed on the
                command line; a value that is not allowed; ranges in an exhaustive search.
        """
        known = keys_known_to(config)
        known.update(*(method_keys(name) for name in trainer_names(config["trainer"])))
        for key in self.nodes:
            check_varied("tune", key, "Set one in the config")
            whose = TEACHER if key.startswith(_TEACHERS) else "student"
            refuse_fixed(config, whose, [key.removeprefix(_TEACHERS)], "tune searches")
            if key not in known and not key.startswith(_TEACHERS):
                raise ConfigError(f"tune: unknown key {key!r}. {did_you_mean(key, known)}")
        ranges = sorted(set(self.nodes) - set(self.choices))
        if self.algo == "exhaustive" and ranges:
            raise ConfigError(
                f"--algo exhaustive: {', '.join(ranges)} cannot be exhausted; allowed: keys with "
                "`choice`. Take --algo random or bayes."
            )
        for key, values in self._examples():
            if key in ranges:
                self._refuse_fractions(key, values, config)
            for value in values if key in self.choices else values[:1]:
                with_keys(config, self.as_keys({key: value}, config))

    def _refuse_fractions(self, key: str, values: list[Any], config: Any) -> None:
        """Raises ConfigError where a range has fractions of what RecBole has whole numbers of."""
        drawn = (self.as_keys({key: value}, config)[key] for value in values)
        fraction = next((value for value in drawn if isinstance(value, float)), None)
        name = key.removeprefix(_TEACHERS)
        if fraction is not None and is_whole(name, self._defaults(key, config)):
            raise ConfigError(
                f"tune: {key}: its range has fractions, e.g. {fraction:.3g}, but it is a whole "
                "number. Allowed: `quniform` in whole steps, or `choice`."
            )

    def _defaults(self, key: str, config: Any) -> dict[str, Any]:
        """RecBole's defaults of the model that a key is of."""
        if not key.startswith(_TEACHERS):
            return config.internal_config_dict
        if self._of_teacher is None:
            spec = recipe_of(config[TEACHER])
            recipe = recipe_config(config, spec) if spec and spec.get("model") else None
            self._of_teacher = recipe.internal_config_dict if recipe is not None else {}
        return self._of_teacher

    def as_keys(self, drawn: dict[str, Any], config: Any) -> dict[str, Any]:
        """What hyperopt has drawn, as a config holds it.

        Strings are read as literals (RecBole's way to write a choice of lists), and a whole number
        is one where the config has one: quniform draws 5.0.
        """
        keys = {}
        for key, value in drawn.items():
            value = as_builtins(value)
            if isinstance(value, str):
                try:
                    value = literal(value)
                except NameError:
                    value = {"true": True, "false": False}.get(value.lower(), value)
            if isinstance(value, float) and value.is_integer() and self._holds_whole(key, config):
                value = int(value)
            keys[key] = value
        return keys

    def _holds_whole(self, key: str, config: Any) -> bool:
        """Whether the config, or the recipe of the teacher, has a whole number there."""
        name, own = key.removeprefix(_TEACHERS), config[key]
        held = own if name == key else self._defaults(key, config).get(name)
        return isinstance(held, int) and not isinstance(held, bool)

    def _examples(self) -> list[tuple[str, list[Any]]]:
        """Every value of a choice, some of a range."""
        from hyperopt import space_eval
        from hyperopt.pyll.stochastic import sample

        return [
            (key, [space_eval(node, {key: place}) for place in range(self.choices[key])])
            if key in self.choices
            else (key, [sample(node, np.random.default_rng(draw)) for draw in range(_SAMPLES)])
            for key, node in self.nodes.items()
        ]


def _find(name: str, algo: str) -> Path:
    """The file of a space.

    Raises:
        ConfigError: There is none.
    """
    shipped = {
        file.stem: file
        for folder in (_SHIPPED if algo == "exhaustive" else _SHIPPED[::-1])
        for file in sorted((properties_folder() / folder).glob("*.yaml"))
    }
    if Path(name).is_file():
        return Path(name)
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"tune: {name} is no file (from {Path.cwd()}) and no space that is shipped. "
        f"{did_you_mean(name, shipped)}"
    )


def _by_kind(content: str, file: Path) -> dict[str, dict[str, Any]]:
    """The lines of a YAML file as RecBole wants them: by kind, then by key.

    Raises:
        ValueError: A line is not of the documented form.
    """
    try:
        lines = parse_yaml(content)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML ({error})") from error
    found: dict[str, dict[str, Any]] = {}
    for key, line in (lines if isinstance(lines, dict) else {str(file): lines}).items():
        rule = read_rule(line, ("choice", "uniform", "quniform", "loguniform"))
        if rule is None:
            raise ValueError(f"{key}: got {line!r}")
        logarithms = rule.kind == "loguniform"
        values = [math.log(value) if logarithms else value for value in rule.values]
        found.setdefault(rule.kind, {})[key] = values
    return found


def as_builtins(value: Any) -> Any:
    """Values as JSON and YAML have them: no tuples, no numbers of NumPy's."""
    if isinstance(value, dict):
        return {str(key): as_builtins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_builtins(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
