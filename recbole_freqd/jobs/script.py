"""The run functions and the script's main. Heavy imports wait until the arguments are read."""

import argparse
import sys
from pathlib import Path
from typing import Any, Optional

from recbole_freqd import __version__
from recbole_freqd.core.errors import FreqDError
from recbole_freqd.jobs.analysis import command as analysing
from recbole_freqd.jobs.comparison import command as comparing
from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.export.command import add_export, run_export
from recbole_freqd.jobs.options import add_launch, check_jobs, launch_of
from recbole_freqd.jobs.tuning.command import add_hyper, run_hyper

_RECBOLE_DOCS = "any other --key=value is a config key, as in RecBole"


def main(arguments: Optional[list[str]] = None) -> int:
    """The script: teacher, student alone and distilled student, one table.

    Args:
        arguments: The command line without the program's name; None: that of this process.

    Returns:
        0, 2 after a mistake of the user's, or 130 after Ctrl-C.
    """
    options, keys = _parse(sys.argv[1:] if arguments is None else arguments)
    argv = sys.argv
    sys.argv = [argv[0], *keys]  # what RecBole's Config will read
    try:
        launch = launch_of(options)
        if options.analyze or options.sweep:
            analysing.run_script(options, keys)
        elif options.export:
            run_export(options, keys)
        elif launch.is_many:
            launch.run(_train_and_report, options)
        else:
            _train_and_report(options, {})
        return 0
    except FreqDError as error:
        if options.debug:
            raise
        print(f"\nrun_recbole_freqd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if options.debug:
            raise
        way = (
            ""
            if max(options.nproc, options.world_size) > 1
            else " The same command with --resume goes on."
        )
        print(f"\nStopped.{way}", file=sys.stderr)
        return 130
    finally:
        sys.argv = argv


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Own options, and the ``--key=value`` that RecBole reads from the command line."""
    parser = argparse.ArgumentParser(
        prog="run_recbole_freqd",
        description="Train a teacher, a small student alone and the same student distilled from "
        "the teacher, and compare them. Without arguments: BPR 64 to BPR 8 on ml-100k.",
        epilog=f"{_RECBOLE_DOCS}, e.g. --embedding_size=16 --teacher.embedding_size=128 "
        "--freqd_alpha=0.3 --trainer=FD. All keys: docs/config.md.",
        allow_abbrev=False,
    )
    parser.add_argument("-m", "--model", help="the student's model (default: BPR)")
    parser.add_argument("-d", "--dataset", help="name of the dataset (default: ml-100k)")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")
    parser.add_argument(
        "--output_dir", default="freqd_runs", help="where results are saved (default: %(default)s)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on where the same command was cut off"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_launch(parser)
    comparing.add_options(parser)
    analysing.add_options(parser)
    add_hyper(parser)
    add_export(parser)
    parser.add_argument("--version", action="version", version=f"recbole_freqd {__version__}")
    options, keys = parser.parse_known_args(arguments)
    for key in keys:
        if not key.startswith("--") or key.count("=") != 1 or key.startswith("--="):
            parser.error(f"{key!r} is not of the form --key=value (RecBole would ignore it)")
        if key.encode("utf-8", "ignore").decode() != key:  # bytes that are no text
            parser.error(f"{key!r} is no text in UTF-8")
    check_jobs(parser, options)
    comparing.check_options(parser, options, keys)
    keys += analysing.check_options(parser, options)
    return options, [*keys, "--resume=True"] if options.resume else keys


def _train_and_report(options: argparse.Namespace, launched: dict[str, Any]) -> None:
    """Runs what the options ask for: a comparison, or one method beside the student alone."""
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    if options.compare is not None:
        return comparing.run_script(options, fill_in(options, files))
    from recbole_freqd.config.make import alone_config, make_config
    from recbole_freqd.config.reading import Given
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs import tables as report

    model, dataset, _, given = fill_in(options, files)
    config = make_config(model, dataset, None, Given({**given, **launched}))
    if options.hyper:
        return run_hyper(options, config)
    distilled = runs.run(config) if config["trainer"] else None
    alone = runs.run(alone_config(config))
    folder = Path(options.output_dir)
    alone.trainer.processes.from_first(
        lambda: report_run(report, config, runs.rows_of(distilled, alone), folder)
    )


def report_run(report: Any, config: Any, rows: list[dict[str, Any]], folder: Path) -> None:
    """Prints the table; saves ``results.json`` and ``results.md`` in a folder of the run's own."""
    from recbole_freqd.compat import shims_installed
    from recbole_freqd.core.files import new_checkpoint_path, write_json, write_text

    stem = f"{config['dataset']}-{config['model']}-{rows[-1]['trainer'] or 'alone'}"
    home = Path(new_checkpoint_path(folder, stem)).with_suffix("")
    metrics = [name for name in rows[-1]["test"] if name.startswith(("recall@", "ndcg@"))]
    metrics = metrics or list(rows[-1]["test"])
    words = report.in_words(rows, config["valid_metric"].lower())
    write_json(
        home / "results.json",
        {
            "dataset": config["dataset"],
            "seed": config["seed"],
            "version": __version__,
            "config": config.final_config_dict,
            "rows": rows,
        },
    )
    text = f"# {stem}\n\n{report.markdown_table(rows, metrics)}\n\n{words}\n"
    write_text(home / "results.md", text)
    print(f"\n{config['dataset']}, seed {config['seed']}\n{report.text_table(rows, metrics)}")
    print(f"\n{words}\nResults: {home}/results.json and results.md")
    student = rows[-1]["checkpoint"]
    print(
        f"The student is a plain RecBole checkpoint: {student}\n"
        "Load it with RecBole alone:\n"
        "    from recbole.quick_start import load_data_and_model\n"
        f"    config, model, dataset, train, valid, test = load_data_and_model({student!r})\n"
        + (
            "RecBole 1.2.1 itself does not run on the packages installed here; before its import,\n"
            "    import recbole_freqd; recbole_freqd.register()\n"
            "repairs that. On the packages it was made for, nothing of ours is needed."
            if shims_installed()
            else ""
        )
    )
