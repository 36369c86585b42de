"""``compare``: methods beside the student alone. Heavy imports wait until it runs."""

import argparse
from typing import Any

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.comparison.compare import SEEDS, compare
from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.options import KEYS, add_shared, read_seeds, split_names

NAME = "compare"
TAKES = ("model", "dataset", "config_files", "output_dir", "resume", "debug")
_ARGUMENTS = (
    "seeds",
    "tune",
    "tune_seeds",
    "tune_only",
    "keep_teacher",
    "search",
    "frozen",
    "rows",
)
_LEFT_TO = {"trainer": "its methods are the trainers", "seed": "--seeds sets the seeds"}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser, with the options of :func:`recbole_freqd.compare`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="methods and the student alone under equal conditions",
        description="Compare methods and the student alone on the same teachers and splits "
        "(docs/comparing.md).",
        epilog=KEYS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "methods", metavar="FreqD,FD,...", type=split_names, help="trainers; FreqD+FD adds both"
    )
    parser.add_argument(
        "--seeds", type=read_seeds, default=SEEDS, help="2020,2021 or 2020-2024 (the default)"
    )
    parser.add_argument(
        "--tune", type=int, metavar="N", default=0, help="search with N trials per row"
    )
    parser.add_argument("--tune_seeds", type=read_seeds, help="default: the first two of --seeds")
    parser.add_argument("--tune_only", action="store_true", help="stop when configs are frozen")
    parser.add_argument("--keep_teacher", action="store_true", help="do not tune the teacher")
    parser.add_argument("--search", metavar="FILE", help="YAML file with your search spaces")
    parser.add_argument("--frozen", metavar="FILE", help="YAML file with chosen configs")
    parser.add_argument("--rows", metavar="FILE", help="YAML file with more rows and their keys")
    add_shared(parser, *TAKES)
    return parser


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Compares.

    Raises:
        ConfigError: A key is set that the comparison sets itself.
        TrainingError: Some runs failed; all others are done.
    """
    for key in keys:
        name = key[2:].partition("=")[0]
        if name in _LEFT_TO:
            raise ConfigError(
                f"--{name}=... does not go with a comparison: {_LEFT_TO[name]}. Leave it out."
            )
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    given = fill_in(options, files, for_one_method=False, quiet=True)
    report_failures(
        compare(
            options.methods,
            *given,
            output_dir=options.output_dir,
            **{name: getattr(options, name) for name in _ARGUMENTS},
        ),
        options,
    )


def report_failures(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Raises TrainingError if a run of the comparison, or a trial of this search, failed."""
    from recbole_freqd.core.errors import TrainingError

    tuning: dict[str, Any] = {}  # an earlier search is not tried again
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
            f"Failed: {'; '.join(failed)}. All other runs are finished and kept. The same command "
            f"tries these again{f', if {options.frozen} has their keys' if options.frozen else ''}."
        )
