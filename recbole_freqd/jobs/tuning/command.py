"""``tune``: a search by RecBole's HyperTuning. Heavy imports wait until it runs."""

import argparse
from pathlib import Path
from typing import Any

from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.options import KEYS, add_shared

NAME = "tune"
TAKES = ("model", "dataset", "config_files", "output_dir", "debug")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser, with the options of :func:`.hyper.search`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="search keys by RecBole's HyperTuning, on validation data only",
        description="Search keys by RecBole's HyperTuning, on validation data only, with one "
        "teacher. A search that was stopped goes on (docs/tuning.md).",
        epilog=KEYS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "space", metavar="SPACE", nargs="+", help="files, or names of what is shipped, e.g. FreqD"
    )
    parser.add_argument("--algo", default="exhaustive", help="exhaustive, random or bayes")
    parser.add_argument("--tool", default="hyperopt", help="hyperopt, or ray: trials side by side")
    parser.add_argument("--max_evals", type=int, help="trials in all (default: all, or 100)")
    parser.add_argument(
        "--keep_checkpoints", action="store_true", help="keep the models of the trials"
    )
    add_shared(parser, *TAKES)
    return parser


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Searches the spaces that the options name."""
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.tuning.hyper import search

    search(
        make_config(*fill_in(options, files, quiet=True)),
        options.space,
        Path(options.output_dir),
        algo=options.algo,
        max_evals=options.max_evals,
        keep=options.keep_checkpoints,
        tool=options.tool,
    )
