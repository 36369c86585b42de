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

Every key with its default, what it may be, and what it means. A key is set in a YAML file, in
`config_dict`, or on the command line as `--key=value`; the command line wins over `config_dict`,
and that over the files. A misspelt key of ours, and a value that is not allowed, is an error that
names the key. Except for `teacher`, every key is flat, so RecBole's `HyperTuning` can set it.

| key | | |
| --- | --- | --- |
| `trainer` | one of [these names](#trainers) or a list, in any case | what is taught, and how |
| `teacher` | a dict, a list of them, or `panel` | who teaches: a checkpoint or a recipe, see [The teacher](#the-teacher) |
"""
TEACHER = """
Below `teacher:`, or as `--teacher.key=value`. Either `checkpoint` is given, or a recipe: `model`
and any of the training and model keys that RecBole has for it (`embedding_size`, `learning_rate`,
`epochs`, ...). Environment, data, split and evaluation are always the student's. A `teacher` that
is given in two places is merged key by key; a list, a team, is replaced by a higher one, and its
entries are changed by `--teacher.0.key=value`. `panel` stands for teachers without training, see
[teacher.md](teacher.md#a-team).
"""
OWN_MODELS = """
Two models are of this package, and need no training; RecBole finds them by these names where
`register()` was called. Their keys, as a teacher's `teacher.key`:
"""
PANEL = """
The panel of teachers that need no training, and how the values of their keys are chosen:
"""
TRAINERS = """
Each has a weight, `<prefix>_beta`; [methods.md](methods.md) says what they teach. What `null`
stands for is in the last column.
"""
SPACES = """
What `--tune` ([comparing.md](comparing.md)) and `tune` ([tuning.md](tuning.md)) draw from, one
file each in [properties/search](../properties/search). `student` is for all students, `teacher`
for a teacher that a recipe trains. In a `loguniform` range values are drawn evenly on a
logarithmic scale.
"""
GRIDS = """
`tune NAME` with the default algorithm takes the grid of that name, where there is one, in
[properties/hyper](../properties/hyper):
"""
QUICK_START = """
What the script sets where you say nothing, in
[properties/quick_start.yaml](../properties/quick_start.yaml). `register()`, `run_recbole_freqd()`
and `FreqDTrainer` do not read it: there RecBole's defaults hold, and those above. With another
trainer than FreqD its `freqd_` keys are left out; `compare` leaves out its learning rates and
weight decays as well. A `teacher.model` or `teacher.checkpoint` of yours, be it BPR, takes the
place of all its `teacher.` keys: what you do not say of that teacher is RecBole's default. Other
`teacher.` keys of yours are merged with them. Coefficients as `freqd_filter` leave out its
`freqd_alpha`.
"""
RECBOLE = """
RecBole looks at few of its own keys. Where a config names a trainer, these are checked, with
RecBole's defaults, which we do not change. What they do is in [RecBole's
documentation](https://recbole.io/docs/). Keys of single models are checked by the type of their
defaults.
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
