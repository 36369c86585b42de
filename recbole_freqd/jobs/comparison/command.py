"""``recbole_freqd.compare`` and the script's ``--compare``. Heavy imports wait until they run."""

import argparse
from typing import Any

from recbole_freqd.jobs.comparison.compare import SEEDS, compare

_NEEDS = ("seeds", "tune", "tune_seeds", "tune_only", "keep_teacher", "search", "frozen")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    group = parser.add_argument_group("comparing methods")
    group.add_argument("--compare", metavar="FreqD,FD,...", help="trainers to run side by side")
    group.add_argument(
        "--seeds", type=_seeds, help="2020,2021 or 2020-2024 (the default; with --sweep: 2020)"
    )
    group.add_argument("--tune", type=int, metavar="N", help="trials for everything compared")
    group.add_argument("--tune_seeds", type=_seeds, help="default: the first two of --seeds")
    group.add_argument("--tune_only", action="store_true", help="stop when configs are frozen")
    group.add_argument("--keep_teacher", action="store_true", help="do not tune the teacher")
    group.add_argument("--search", metavar="FILE", help="YAML file of your own search spaces")
    group.add_argument("--frozen", metavar="FILE", help="YAML file of chosen configs")


def check_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, keys: list[str]
) -> None:
    """Ends the program where options do not go together."""
    if options.compare is None:
        for name in _NEEDS:
            given = getattr(options, name) != parser.get_default(name)
            if given and not (name == "seeds" and options.sweep):
                parser.error(f"--{name} goes with --compare, e.g. --compare FreqD,FD")
        return
    for key in keys:
        name = key[2:].partition("=")[0]
        if name in ("trainer", "seed"):
            parser.error(f"--{name} is left to --compare and --seeds: leave it out")


def run_script(options: argparse.Namespace, given: tuple[Any, ...]) -> None:
    """What the script does with ``--compare``.

    Args:
        options: Of :func:`add_options`.
        given: Model, dataset, files and keys.

    Raises:
        TrainingError: Some of it failed; the rest is done.
    """
    from recbole_freqd.core.errors import TrainingError

    results = compare(
        options.compare.split(","),
        *given,
        seeds=SEEDS if options.seeds is None else options.seeds,
        tune=options.tune or 0,
        output_dir=options.output_dir,
        **{name: getattr(options, name) for name in _NEEDS if name not in ("seeds", "tune")},
    )
    tuning: dict[str, Any] = {}  # a search that was not made now is not tried again either
    if options.tune:
        tuning = results["tuned"] if options.tune_only else results["tuning"]
    failed = [
        *(f"{each['what']}, seed {each['seed']}" for each in results.get("failed", ())),
        *(
            f"{each['runs']} trial runs of {what}"
            for what, each in tuning.get("failed", {}).items()
        ),
    ]
    if failed:
        raise TrainingError(
            f"Failed: {'; '.join(failed)}. All else is finished and kept; the same command tries "
            f"these again{f', if {options.frozen} has keys for them' if options.frozen else ''}."
        )


def _seeds(text: str) -> list[int]:
    """``2020,2022`` or ``2020-2024``."""
    first, dash, last = text.partition("-")
    try:
        seeds = range(int(first), int(last) + 1) if dash else map(int, text.split(","))
        found = list(seeds)
    except ValueError:
        found = []
    if not found:  # 2024-2020 has none, too
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: 2020,2021 or 2020-2024")
    return found
