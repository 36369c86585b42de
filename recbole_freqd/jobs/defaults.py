"""The script's own defaults, and the files that a run reads."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import ConfigError, short_repr


def config_files(options: argparse.Namespace) -> list[str]:
    """The files that ``--config_files`` names.

    Raises:
        ConfigError: There is no such file.
    """
    files = [] if options.config_files is None else options.config_files.split()
    if not files and options.config_files is not None:
        raise ConfigError("--config_files: got nothing; allowed: YAML files, separated by spaces.")
    for file in files:
        if not os.path.isfile(file):
            raise ConfigError(
                f"--config_files: {short_repr(file)[1:-1]} does not exist, or is no file (from "
                f"{Path.cwd()}). Names of files are separated by spaces."
            )
    return files


def fill_in(
    options: argparse.Namespace,
    files: list[str],
    *,
    for_one_method: bool = True,
    quiet: bool = False,
) -> tuple[str, str, None, Any]:
    """Reads the user's keys once, and puts the script's own defaults below them.

    Args:
        options: Of the script: ``model`` and ``dataset``.
        files: Its config files.
        for_one_method: Whether one trainer is run, and not several that are compared.
        quiet: Whether the job says itself how its runs went: then RecBole says little.

    Returns:
        Model, dataset, no files any more, and all keys
        (:class:`recbole_freqd.config.reading.Given`).
    """
    import yaml

    from recbole_freqd.config.reading import Given, deep_merge, read_given
    from recbole_freqd.core.schema import properties_folder

    text = (properties_folder() / "quick_start.yaml").read_text(encoding="utf-8")
    given = read_given(files)
    defaults = _defaults_of_this_job(yaml.safe_load(text), given, for_one_method)
    if quiet:
        defaults.update(state="WARNING", show_progress=False)
    else:  # bars that are redirected would be drawn line by line
        defaults["show_progress"] = sys.stderr is not None and sys.stderr.isatty()
    named = {key: given.get(key) for key in ("model", "dataset")}
    model, dataset = (
        next(
            value
            for value in (getattr(options, key), named[key], defaults[key])
            if value is not None
        )
        for key in ("model", "dataset")
    )
    keys = deep_merge(defaults, given)
    own = frozenset(set(defaults) - set(given))
    return model, dataset, None, Given(keys, given.command_line, own)


def _defaults_of_this_job(
    defaults: dict[str, Any], given: dict[str, Any], for_one_method: bool
) -> dict[str, Any]:
    """The main job's settings, less those that would be wrong beside what the user gave."""
    from recbole_freqd.config.complete import trainer_names
    from recbole_freqd.config.names import TEACHER
    from recbole_freqd.config.teacher import FORMS
    from recbole_freqd.core.schema import method_keys
    from recbole_freqd.losses import LOSSES

    teacher = given.get(TEACHER)
    if isinstance(teacher, dict) and not set(FORMS) & set(teacher):
        defaults[TEACHER] = {**defaults[TEACHER], **teacher}
    elif teacher is not None:
        del defaults[TEACHER]
    if not for_one_method:  # what FreqD was tuned with would be nobody else's choice
        names = []
        del defaults["trainer"]
        for section in (defaults, defaults.get(TEACHER, {})):
            for key in ("learning_rate", "weight_decay"):
                section.pop(key, None)
    else:
        names = trainer_names(given.get("trainer", defaults["trainer"]))
    for method in LOSSES.names():  # what the main job sets for FreqD is no default of another job
        if method not in names:
            drop = set(method_keys(method))
        elif not isinstance(given.get(f"{LOSSES.get(method).prefix}_filter", ""), str):
            drop = {f"{LOSSES.get(method).prefix}_alpha"}  # the user's coefficients say all of h
        else:
            drop = set()
        defaults = {key: value for key, value in defaults.items() if key not in drop}
    return defaults
