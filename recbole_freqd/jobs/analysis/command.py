"""The script's ``--analyze`` and ``--sweep``. Heavy imports wait until they run."""

import argparse
import sys
from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import ConfigError, TrainingError


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of figures."""
    group = parser.add_argument_group("figures (extra [plot]: see docs/install.md)")
    group.add_argument(
        "--analyze", action="store_true", help="what students know of a teacher, by frequency"
    )
    group.add_argument("--teacher", help="its checkpoint, with --analyze")
    group.add_argument("--student", action="append", help="a checkpoint; repeat for several")
    group.add_argument("--bands", type=int, help="bands of frequencies (default: 8)")
    group.add_argument("--sweep", help="a key and values to run: freqd_alpha=0,0.1,...,1")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Ends the program where options do not go together.

    Returns:
        Arguments that were keys of RecBole after all: ``--teacher={...}`` is one.
    """
    if options.analyze:
        return []
    for name in ("student", "bands"):
        if getattr(options, name) is not None:
            parser.error(f"--{name} goes with --analyze")
    return [] if options.teacher is None else [f"--teacher={options.teacher}"]


def run_script(options: argparse.Namespace, keys: list[str]) -> None:
    """What the script does with ``--analyze`` or ``--sweep``.

    Args:
        options: Of :func:`add_options`.
        keys: The config keys of the command line.

    Raises:
        FreqDError: Checkpoints, keys or values are not as they should be.
        TrainingError: Some runs of a sweep failed; the rest is done.
    """
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.defaults import config_files, fill_in
    from recbole_freqd.trainer.register import register

    files = config_files(options)
    if options.analyze and not (options.teacher and options.student):
        raise ConfigError("--analyze needs --teacher t.pth and at least one --student s.pth.")
    register()
    from recbole_freqd.checkpoint.loading import load_checkpoint
    from recbole_freqd.jobs.analysis import analyze, sweep
    from recbole_freqd.jobs.fairness import check_seeds

    folder = Path(options.output_dir)
    if options.analyze:
        dataset = load_checkpoint(options.teacher)["config"]["dataset"]
        where = make_config("BPR", dataset, files, {})  # a device, and where data lies now
        report = analyze.analyze(
            options.teacher, options.student, where, folder, options.bands or 8
        )
        print(f"Report: {report}\nFigures and numbers are beside it.")
        return

    def config_with(values: dict[str, str]) -> Any:
        sys.argv = [sys.argv[0], *keys, *(f"--{key}={value}" for key, value in values.items())]
        return make_config(*fill_in(options, files))

    key, values = sweep.read_sweep(options.sweep)
    seeds = check_seeds([2020] if options.seeds is None else options.seeds, "--seeds")
    figure, failed = sweep.sweep(key, values, seeds, config_with, folder)
    print(f"Figure: {figure}\nNumbers are beside it.")
    if failed:
        errors = "; ".join(
            f"{each['what']}, seed {each['seed']}: {each['error']}" for each in failed
        )
        raise TrainingError(
            f"Failed, and left out of the figure: {errors} All else is finished and kept, "
            f"tracebacks are in {figure.parent / 'cells'}; the same command tries these again."
        )
