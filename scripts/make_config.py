"""Writes docs/config.md from the lines of properties/, which are its only source.

python scripts/make_config.py        # part of: make docs
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from recbole_freqd.core.schema import Key, properties_folder, read_keys, run_defaults
from recbole_freqd.losses import LOSSES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"
INTRO = """# Config keys

<!-- Made by scripts/make_config.py from properties/: change the lines there, then `make docs`. -->

This page has every key: its default, the values that it takes, and its meaning. You set a key in a
YAML file, in `config_dict`, or on the command line as `--key=value`. The command line wins over
`config_dict`, and that over the files. A misspelt key of this package is an error that names the
key, and so is a value that is not allowed. Every key but `teacher` is flat, so RecBole's
`HyperTuning` can set it.

| key | | |
| --- | --- | --- |
| `trainer` | one of [these names](#trainers) or a list, in any case | what is taught, and how |
| `teacher` | a dict, a list of them, or `panel` | who teaches, see [The teacher](#the-teacher) |
"""
TEACHER = """
These keys go below `teacher:`, or on the command line as `--teacher.key=value`. Give a
`checkpoint`, or `vectors` or `lists` of another system, or a recipe: `model` and any of RecBole's
training and model keys for it (`embedding_size`, `learning_rate`, `epochs`, ...). Environment,
data, split and evaluation are always the student's. If you give `teacher` in two places, they are
merged key by key. A list (a team) is replaced by a higher one, and `--teacher.0.key=value` changes
its entries. `panel` stands for teachers without training, see [teacher.md](teacher.md#a-team).
"""
OWN_MODELS = """
This package brings two models that need no training. RecBole finds them by these names after
`register()`. A teacher has their keys as `teacher.key`:
"""
PANEL = """
These keys are about the panel of teachers that need no training: who is in it, and how the values
of their keys are chosen.
"""
TRAINERS = """
Each trainer has a weight, `<prefix>_beta`. [methods.md](methods.md) says what it teaches. The last
column says what `null` stands for.
"""
SPACES = """
`--tune` ([comparing.md](comparing.md)) and `tune` ([tuning.md](tuning.md)) draw from these ranges.
Each has a file in [properties/search](../properties/search). `student` is for all students,
`teacher` for a teacher that a recipe trains. A `loguniform` range draws evenly on a logarithmic
scale.
"""
GRIDS = """
`tune NAME` with the default algorithm takes the grid of that name in
[properties/hyper](../properties/hyper), if there is one:
"""
QUICK_START = """
The script sets these keys where you say nothing. They are in
[properties/quick_start.yaml](../properties/quick_start.yaml). `register()`, `run_recbole_freqd()`
and `FreqDTrainer` do not read that file: there RecBole's defaults hold, and those above.

- With another trainer than FreqD the script leaves out the `freqd_` keys. If you name any trainer, it
  leaves out the rows of FreqRank.
- `compare` also leaves out the learning rates and weight decays.
- Your own `teacher.model` or `teacher.checkpoint`, be it BPR, takes the place of all `teacher.` keys
  here. What you do not say of that teacher is RecBole's default. Your other `teacher.` keys are
  merged with these.
- Coefficients as `freqd_filter` leave out the `freqd_alpha`.
"""
RECBOLE = """
RecBole checks few of its own keys. If your config names a trainer, this package checks these, and
keeps RecBole's defaults. [RecBole's documentation](https://recbole.io/docs/) says what they do. It
checks the keys of single models by the type of their defaults.
"""


def pages() -> dict[Path, str]:
    """docs/config.md, the whole of it."""
    first = ["FreqD", "FD"]
    names = [*first, *sorted(set(LOSSES.names()) - set(first), key=str.lower)]
    parts = [INTRO, "\n## The run\n\n", table(read_keys("run.yaml").values())]
    parts += ["\n## The teacher\n", TEACHER, "\n", table(read_keys("teacher.yaml").values())]
    parts += ["\n### Models of this package\n", OWN_MODELS]
    for name in ("ShrunkKNN", "GFCF"):
        parts += [f"\n`{name}`:\n\n", table(read_keys(f"model/{name}.yaml").values())]
    parts += ["\n### The panel\n", PANEL, "\n", table(read_keys("panel.yaml").values())]
    parts += ["\n## Trainers\n", TRAINERS]
    for name in names:
        file = f"trainer/{name}.yaml"
        parts += [f"\n### {name}\n\n", first_comment(file).removeprefix(f"{name}: ")]
        parts += ["\n\n", table(read_keys(file).values()), of_the_run(name)]
    parts += ["\n## Search spaces\n", SPACES, "\n", spaces(names), GRIDS, "\n", grids()]
    parts += ["\n## The main job\n", QUICK_START, "\n", main_job()]
    parts += ["\n## Keys of RecBole\n", RECBOLE, "\n", table(read_keys("recbole.yaml").values())]
    return {PAGE: "".join(parts)}


def table(keys: Iterable[Key]) -> str:
    """Keys as rows: name, default, what is allowed, meaning."""
    rows = ((f"`{key.name}`", code(key.default), key.allowed, key.meaning) for key in keys)
    return as_rows(("key", "default", "allowed", "meaning"), rows)


def of_the_run(name: str) -> str:
    """The keys of a run that a trainer sets where the user says nothing."""
    rows = [(f"`{key}`", code(value)) for key, value in run_defaults(name).items()]
    return "\n" + as_rows(("key of the run", "with this trainer"), rows) if rows else ""


def spaces(names: list[str]) -> str:
    """The rows of properties/search, students and teachers first, then in the order of names."""
    order = ["student", "teacher", *names]
    files = {file.stem: file for file in sorted((properties_folder() / "search").glob("*.yaml"))}
    rows = []
    for name in sorted(files, key=lambda stem: order.index(stem) if stem in order else len(order)):
        for key, line in yaml.safe_load(files[name].read_text(encoding="utf-8")).items():
            ((kind, values),) = line.items()
            words = (", " if kind == "choice" else " to ").join(map(code, values))
            rows.append((name, f"`{key}`", kind, words))
    return as_rows(("for", "key", "drawn", "from"), rows)


def grids() -> str:
    """The rows of properties/hyper."""
    rows = []
    for file in sorted((properties_folder() / "hyper").glob("*.yaml")):
        for key, line in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            rows.append((file.stem, f"`{key}`", ", ".join(map(code, line["choice"]))))
    return as_rows(("for", "key", "values"), rows)


def main_job() -> str:
    """The keys of the main job, the teacher's with their prefix."""
    file = properties_folder() / "quick_start.yaml"
    keys = yaml.safe_load(file.read_text(encoding="utf-8"))
    teacher = {f"teacher.{key}": value for key, value in keys.pop("teacher").items()}
    return as_rows(
        ("key", "value"), ((f"`{key}`", code(value)) for key, value in {**keys, **teacher}.items())
    )


def first_comment(file: str) -> str:
    """The comment that a file begins with, as one paragraph."""
    text = (properties_folder() / file).read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def code(value: Any) -> str:
    """A value as YAML would have it."""
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"`{value:f}".rstrip("0") + "`"  # not 1e-05, which YAML reads as a string
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return f"`{text.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"


def as_rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines
    )


if __name__ == "__main__":
    PAGE.write_text(pages()[PAGE], encoding="utf-8")
    print(f"{PAGE}: made from {properties_folder()}")
