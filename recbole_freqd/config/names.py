"""Checks the names of keys: RecBole silently reads a misspelt one as None."""

import logging
from functools import cache
from typing import Any

from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr
from recbole_freqd.core.schema import Key, method_keys, nearest, read_keys
from recbole_freqd.losses import LOSSES

TEACHER = "teacher"
# Reserved teacher keys whose names can mean nothing else at the top level.
_ONLY_OF_TEACHERS = (
    "spectral_rank",
    "trust_checkpoint",
    "trust_data",
    "allow_leakage",
    "min_overlap",
    "memory_map",
    "precision",
    "keep_every",
)
# Keys of RecBole that are no settings: it works them out itself, and believes what it is given.
NOT_SETTINGS = (
    "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "eval_type",
    "device",
    "single_spec",
    "valid_neg_sample_args",
    "test_neg_sample_args",
)
WEIGHT_AVERAGE = "weight_average"
_OF_ANY_TRAINING = ("resume", WEIGHT_AVERAGE)
logger = logging.getLogger(__name__)
OF_MANY_PROCESSES = ("local_rank", "nproc", "world_size", "offset", "ip", "port")


def run_keys() -> dict[str, Key]:
    """Our keys of a run at the top level of a config, by name."""
    return {**read_keys("run.yaml"), **read_keys("panel.yaml")}


def teaching_keys() -> dict[str, Key]:
    """Those that say what is taught, by what lists, and from where: not of a student alone."""
    return {name: key for name, key in run_keys().items() if name not in _OF_ANY_TRAINING}


def refuse_misspelt(external: dict[str, Any], hosts: set[str]) -> None:
    """Raises ConfigError on unknown keys that are, or nearly are, keys of this package.

    Args:
        external: What the user gave.
        hosts: The keys RecBole knows.
    """
    ours = ["trainer", TEACHER, *run_keys()]
    prefixes = {}
    for name in LOSSES.names():
        prefix = LOSSES.get(name).prefix
        prefixes[f"{prefix}_"] = name
        # A short prefix is near too many words: fc_dropout is no misspelt fd_dropout.
        ours += method_keys(name) if len(prefix) > 3 else []
    known = hosts.union(ours, *(method_keys(name) for name in LOSSES.names()))
    for key in map(str, external):
        if key in known:
            continue
        if f"{key}_" in prefixes and isinstance(external[key], dict):
            raise ConfigError(
                f"{key}: got nested keys {short_repr(external[key])}; allowed: flat ones, e.g. "
                f"{next(iter(method_keys(prefixes[f'{key}_'])))}."
            )
        for prefix, name in prefixes.items():
            if key.startswith(prefix):
                raise ConfigError(
                    f"Unknown key {short_repr(key)} of trainer {name}. "
                    f"{did_you_mean(key, method_keys(name))} Correct it where you set it."
                )
        if key in _ONLY_OF_TEACHERS:
            raise ConfigError(
                f"Unknown key {key!r}; did you mean '{TEACHER}.{key}'? RecBole would ignore it "
                "silently: correct or remove it where you set it."
            )
        if key.startswith(f"{TEACHER}_"):
            raise ConfigError(
                f"Unknown key {short_repr(key)}. {did_you_mean(key, teaching_keys())} A key of the "
                f"teacher's own stands below it: {TEACHER}.{key[len(TEACHER) + 1 :]}."
            )
        near = nearest(key, ours) or nearest(key.partition(".")[0], ours)
        if near:
            raise ConfigError(
                f"Unknown key {short_repr(key)}; did you mean {near!r}? RecBole would ignore it "
                "silently: correct or remove it where you set it."
            )


def refuse_keys_that_are_no_text(external: dict[Any, Any], where: str = "") -> None:
    """Raises on keys such as YAML makes of ``on``, ``no``, ``null``, ``5`` or a date.

    Args:
        external: What the user gave.
        where: Prefix of the keys in messages.
    """
    read_from = {"True": "on, yes or true", "False": "off, no or false", "None": "null or ~"}
    for key in external:
        if not isinstance(key, str):
            said = read_from.get(repr(key))
            hint = f" YAML reads {said} as that:" if said else ""
            raise ConfigError(
                f"The key {where}{short_repr(key)} of the config is a {type(key).__name__}; "
                f"allowed: text.{hint} Put the key in quotes where you set it, or remove it."
            )
    teacher = None if where else external.get(TEACHER)
    for member in teacher if isinstance(teacher, list) else [teacher]:
        if isinstance(member, dict):
            refuse_keys_that_are_no_text(member, f"{TEACHER}.")


def mention_unknown(external: dict[str, Any], hosts: set[str]) -> None:
    """Warns of unknown keys that are nearly ones of RecBole; a model of one's own may read them."""
    known = hosts.union(NOT_SETTINGS, *(method_keys(name) for name in LOSSES.names()))
    for key in map(str, external):
        near = None if key in known else nearest(key, sorted(hosts))
        if near:
            _mention(key, near)


@cache  # once in a process: a comparison makes dozens of Configs of the same keys
def _mention(key: str, near: str) -> None:
    logger.warning(
        "Unknown key %s: RecBole ignores it, unless a model of your own reads it. Did you mean %r?",
        short_repr(key),
        near,
    )


def refuse_what_is_no_setting(external: dict[str, Any]) -> None:
    """Raises on keys that RecBole works out itself, and on some of a launch in many processes.

    Given ``local_rank``, RecBole would wait for other processes; given ``device`` or
    ``MODEL_TYPE``, it would believe it. A launch gives all of its keys to every process.
    """
    launched = set(OF_MANY_PROCESSES) <= set(external)
    for key in external:
        if key in NOT_SETTINGS:
            raise ConfigError(
                f"{key}: got {short_repr(external[key])}; RecBole works it out itself. Remove it."
            )
        if key in OF_MANY_PROCESSES and not launched:
            raise ConfigError(
                f"{key}: got {short_repr(external[key])}; it is no key of a config, but an option "
                "of a launch. Remove it, and use --nproc 2 or run(..., nproc=2)."
            )
