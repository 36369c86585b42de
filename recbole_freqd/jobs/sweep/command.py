"""``sweep``: one key over several values and seeds. Heavy imports wait until it runs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import TrainingError
from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.options import KEYS, add_shared, read_seeds
from recbole_freqd.jobs.progress import print_line

NAME = "sweep"
TAKES = ("model", "dataset", "config_files", "output_dir", "debug")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="run one key over several values, on validation data only, and draw the curve",
        description="Run one key over several values, on validation data only, and draw the curve "
        "(docs/analysis.md; extra [plot]).",
        epilog=KEYS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "key_values", metavar="KEY=VALUES", help="e.g. freqd_alpha=0,0.1,...,1 or freqd_k=5,10"
    )
    parser.add_argument(
        "--seeds", type=read_seeds, default=[2020], help="2020,2021 or 2020-2024 (default: 2020)"
    )
    add_shared(parser, *TAKES)
    return parser


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Sweeps, and says where the figure is.

    Raises:
        FreqDError: Key or values are not as they should be.
        TrainingError: Some runs failed; the rest is done.
    """
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.fairness import check_seeds
    from recbole_freqd.jobs.sweep.sweep import check_key, read_sweep, sweep

    def config_with(values: dict[str, str]) -> Any:
        sys.argv = [sys.argv[0], *keys, *(f"--{key}={value}" for key, value in values.items())]
        return make_config(*fill_in(options, files, quiet=True))

    key, values = read_sweep(options.key_values)
    check_key(key, keys)
    seeds = check_seeds(options.seeds, "--seeds")
    figure, failed = sweep(key, values, seeds, config_with, Path(options.output_dir))
    print_line(f"Figure: {figure}\nNumbers are beside it.")
    if failed:
        errors = "; ".join(
            f"{each['what']}, seed {each['seed']}: {each['error']}" for each in failed
        )
        raise TrainingError(
            f"Failed, and left out of the figure: {errors} All else is finished and kept, "
            f"tracebacks are in {figure.parent / 'cells'}; the same command tries these again."
        )
