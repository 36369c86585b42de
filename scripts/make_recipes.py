"""Shipped configs from the results of a comparison, one for each method that was tuned.

    python scripts/make_recipes.py results/citeulike/results-1234abcd.json

writes ``properties/recipe/<dataset>/<teacher>-<student>-<method>.yaml``: the method's keys, all of
them, and of RecBole's those that are not its defaults. What depends on the machine, the place of
the data above all, is the user's to say.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from recbole_freqd.config.identity import WHERE_IT_RUNS
from recbole_freqd.config.make import make_config
from recbole_freqd.config.names import NOT_SETTINGS
from recbole_freqd.core.errors import ConfigError, FreqDError
from recbole_freqd.core.files import write_text
from recbole_freqd.core.schema import properties_folder
from recbole_freqd.losses import LOSSES

_ALWAYS = ("learning_rate", "weight_decay", "embedding_size")


def recipe_of(results: dict[str, Any], method: str) -> dict[str, Any]:
    """The config of a method that was compared, ready to run once ``data_path`` is given.

    Args:
        results: See :func:`recbole_freqd.compare`; RecBole is registered.
        method: One of its methods.

    Raises:
        ConfigError: It was not tuned, or failed; its teacher is a file.
    """
    row = next((row for row in results["table"] if row["what"] == method), None)
    if row is None or row.get("failed") or not results["tuning"]:
        raise ConfigError(
            f"{method} makes no recipe: allowed are methods of a comparison that were tuned with "
            f"--tune and did not fail; there: {', '.join(results['methods'])}."
        )
    teacher = results["teacher"]
    if teacher.get("checkpoint") is not None:
        raise ConfigError(
            f"The teacher of {method} is {teacher['checkpoint']}: a recipe that is shipped needs a "
            "teacher.model that anybody can train. Compare with one."
        )
    found = {**results["common"], **results["configs"][method]}
    losses = found["trainer"] if isinstance(found["trainer"], list) else [found["trainer"]]
    prefixes = tuple(f"{LOSSES.get(name).prefix}_" for name in losses)
    plain = make_config(results["model"], results["dataset"], None, {}).final_config_dict
    defaults = json.loads(json.dumps(plain, default=str))
    missing = object()
    keys = {
        key: value
        for key, value in found.items()
        if key.startswith(prefixes) or key in _ALWAYS or defaults.get(key, missing) != value
    }
    for key in (*WHERE_IT_RUNS, *NOT_SETTINGS, "trainer", "teacher", "model", "dataset", "seed"):
        keys.pop(key, None)
    head = {"model": results["model"], "dataset": results["dataset"], "trainer": found["trainer"]}
    return {**head, **keys, "teacher": {key: teacher[key] for key in sorted(teacher, key=_order)}}


def write_recipes(file: Path, output: Path, note: str = "") -> list[Path]:
    """Writes a recipe for every method of a file of results that has been tuned and has not failed.

    Where another one is replaced, it is printed where that one was from.

    Args:
        file: The results.
        output: The folder of recipes.
        note: What else is to be known of how they were chosen, such as "after test".

    Raises:
        FreqDError: There is none, a recipe does not pass the checks of a config, or the file
            cannot be read or written.
    """
    from recbole_freqd import register

    register()
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        rows = {row["what"]: row for row in results["table"]}
        methods = [method for method in results["methods"] if not rows[method].get("failed")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} holds no results of compare: {error!r}.") from error
    if not methods:
        raise ConfigError(f"{file}: all methods failed; there is nothing to write.")
    written = []
    for method in methods:
        keys = recipe_of(results, method)
        make_config(None, None, None, keys)
        name = f"{results['teacher_model']}-{results['model']}-{method}.yaml"
        path = output / results["dataset"] / name
        origin = f"{file.parent.name}/{file.name}"
        text = _comment(results, rows[method], origin, note) + yaml.safe_dump(
            keys, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
        _say_what_is_replaced(path, text)
        write_text(path, text)
        written.append(path)
    return written


def _say_what_is_replaced(path: Path, text: str) -> None:
    """Says that another recipe is there already, and the last line of its comment: its origin."""
    old = path.read_text(encoding="utf-8") if path.is_file() else text
    if old != text:
        comments = [line for line in old.splitlines() if line.startswith("#")]
        print(f"{path} replaces another one: {(comments or ['# no comment'])[-1][2:]}")


def _comment(results: dict[str, Any], row: dict[str, Any], file: str, note: str) -> str:
    """What the config is, how it was found, what it came to."""
    tuning, metric = results["tuning"], results["metric"]
    test = row["test"][metric]
    spread = "" if test["sd"] is None else f" ± {test['sd']:.4f}"
    return (
        f"# {results['dataset']}: {results['teacher_model']} → {results['model']}, {row['what']}. "
        "Give data_path, and a seed.\n"
        f"# Chosen by {tuning['trials']} trials on validation data (seed "
        f"{', '.join(map(str, tuning['seeds']))}){note and f', {note}'}.\n"
        f"# Test {metric} {test['mean']:.4f}{spread} over seeds "
        f"{', '.join(map(str, results['seeds']))}: {file}, commit "
        f"{', '.join(map(str, results['commits']))}.\n"
    )


def _order(key: str) -> tuple[bool, str]:
    return key != "model", key


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description="Recipes from the results of comparisons.")
    parser.add_argument("results", nargs="+", type=Path, help="results-<hash>.json of compare")
    parser.add_argument("--output_dir", type=Path, default=properties_folder() / "recipe")
    parser.add_argument("--note", default="", help='how they were chosen besides: "after test"')
    options = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config would read it too
    try:
        for file in options.results:
            print("\n".join(map(str, write_recipes(file, options.output_dir, options.note))))
    except FreqDError as error:
        sys.exit(f"recipes: {error}")


if __name__ == "__main__":
    main()
