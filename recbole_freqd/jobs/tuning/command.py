"""The options of a search, and the search that they ask for."""

import argparse
from pathlib import Path
from typing import Any


def add_hyper(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`recbole_freqd.jobs.tuning.hyper.search`."""
    group = parser.add_argument_group("tuning by RecBole's HyperTuning (docs/tuning.md)")
    group.add_argument("--hyper", metavar="SPACE", help="files or shipped names, e.g. FreqD")
    group.add_argument("--algo", default="exhaustive", help="exhaustive, random or bayes")
    group.add_argument("--tool", default="hyperopt", help="hyperopt, or ray: trials side by side")
    group.add_argument("--max_evals", type=int, help="trials in all (default: all, or 100)")
    group.add_argument(
        "--keep_checkpoints", action="store_true", help="keep the models of the trials"
    )


def run_hyper(options: argparse.Namespace, config: Any) -> None:
    """Searches the spaces that the options name."""
    from recbole_freqd.jobs.tuning.hyper import search

    search(
        config,
        options.hyper.split(),
        Path(options.output_dir),
        algo=options.algo,
        max_evals=options.max_evals,
        keep=options.keep_checkpoints,
        tool=options.tool,
    )
