"""The run functions and the script's main. Heavy imports wait until the arguments are read."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Optional

from recbole_freqd import __version__, analysing, comparing
from recbole_freqd.core.errors import ConfigError, FreqDError, shown
from recbole_freqd.options import (
    add_export,
    add_hyper,
    add_launch,
    check_jobs,
    launch_of,
    run_export,
    run_hyper,
)
from recbole_freqd.trainer.launch import Launch

_RECBOLE_DOCS = "any other --key=value is a config key, as in RecBole"


def run_recbole_freqd(
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[list[str]] = None,
    config_dict: Optional[dict[str, Any]] = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
) -> dict[str, Any]:
    """RecBole's ``run``, where the config may name a distillation trainer.

    Args:
        model: The student's name; None: ``model`` of the config.
        dataset: Name of the dataset; None: ``dataset`` of the config.
        config_file_list: YAML files, later ones win.
        config_dict: Keys that win over the files; the command line wins over both.
        saved: Whether the best model is saved and tested (else the last one is).
        nproc, world_size, ip, port, group_offset: As RecBole's ``run``: processes on this machine
            and on all, where the first one is, and the rank of this machine's first. A process
            takes a GPU, or, where there is none, cores. See ``docs/multi_process.md``.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``, plus ``teacher_test_result`` (None where no trainer is named, or where the
        teacher does not know all users that are tested).

    Raises:
        FreqDError: Config, teacher or checkpoint are not as they should be.

    Example:
        >>> result = run_recbole_freqd("BPR", "ml-100k", config_dict={
        ...     "trainer": "FreqD", "embedding_size": 8,
        ...     "teacher": {"model": "BPR", "embedding_size": 64}})  # doctest: +SKIP
    """
    launch = Launch(nproc, world_size, ip, port, group_offset)
    launch.check()
    job = (model, dataset, config_file_list, config_dict, saved)
    return launch.run(_train, *job) if launch.is_many else _train(*job, {})


def _train(
    model: Optional[str],
    dataset: Optional[str],
    config_file_list: Optional[list[str]],
    config_dict: Optional[dict[str, Any]],
    saved: bool,
    launched: dict[str, Any],
) -> dict[str, Any]:
    """:func:`run_recbole_freqd` in one of the processes."""
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd import runs
    from recbole_freqd.config.make import make_config

    config = make_config(model, dataset, config_file_list, {**(config_dict or {}), **launched})
    done = runs.run(config, saved=saved)
    teacher_test_result = None
    if config["trainer"]:
        (teacher_test_result,) = done.trainer.processes.agreed(
            lambda: runs.evaluate_teacher(done, 2)[1]
        )
    return {
        "best_valid_score": done.best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": done.best_valid_result,
        "test_result": done.test_result,
        "teacher_test_result": teacher_test_result or None,
    }


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
    from recbole_freqd import report, runs
    from recbole_freqd.config.make import alone_config, make_config

    model, dataset, files, low = fill_in(options, files)
    config = make_config(model, dataset, files, {**low, **launched})
    if options.hyper:
        return run_hyper(options, config)
    distilled = runs.run(config) if config["trainer"] else None
    alone = runs.run(alone_config(config))
    folder = Path(options.output_dir)
    alone.trainer.processes.agreed(
        lambda: report_run(report, config, runs.rows_of(distilled, alone), folder)
    )


def config_files(options: argparse.Namespace) -> list[str]:
    """The files that ``--config_files`` names.

    Raises:
        ConfigError: There is no such file.
    """
    files = [] if options.config_files is None else options.config_files.split()
    if not files and options.config_files is not None:
        raise ConfigError("--config_files: got nothing; allowed: YAML files, separated by spaces.")
    for file in files:
        if not os.path.isfile(file):
            raise ConfigError(
                f"--config_files: {shown(file)[1:-1]} does not exist, or is no file (from "
                f"{Path.cwd()}). Names of files are separated by spaces."
            )
    return files


def fill_in(
    options: argparse.Namespace, files: list[str]
) -> tuple[str, str, list[str], dict[str, Any]]:
    """What the user gave, with the script's own defaults below it."""
    import yaml

    from recbole_freqd.config.names import TEACHER
    from recbole_freqd.config.reading import asking_recbole, read_external
    from recbole_freqd.core.schema import properties_folder

    text = (properties_folder() / "quick_start.yaml").read_text(encoding="utf-8")
    with asking_recbole():
        given = read_external(files)
    defaults = _defaults_of_this_job(options, yaml.safe_load(text), given)
    named = {key: given.get(key) for key in ("model", "dataset")}
    model, dataset = (
        next(
            value
            for value in (getattr(options, key), named[key], defaults[key])
            if value is not None
        )
        for key in ("model", "dataset")
    )
    low = {key: value for key, value in defaults.items() if key not in given or key == TEACHER}
    return model, dataset, files, low


def _defaults_of_this_job(
    options: argparse.Namespace, defaults: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """The main job's settings, less those that would be wrong beside what the user gave."""
    from recbole_freqd.config.complete import trainer_names
    from recbole_freqd.config.names import TEACHER
    from recbole_freqd.config.teacher import CHECKPOINT, RECIPE
    from recbole_freqd.core.schema import method_keys
    from recbole_freqd.losses import LOSSES

    teacher = given.get(TEACHER)
    if isinstance(teacher, dict) and not {CHECKPOINT, RECIPE} & set(teacher):
        defaults[TEACHER] = {**defaults[TEACHER], **teacher}
    elif teacher is not None:
        del defaults[TEACHER]
    if options.compare is not None:  # what FreqD was tuned with would be nobody else's choice
        names = []
        del defaults["trainer"]
        defaults.update(state="WARNING", show_progress=False)
        for section in (defaults, defaults.get(TEACHER, {})):
            for key in ("learning_rate", "weight_decay"):
                section.pop(key, None)
    else:
        names = trainer_names(given.get("trainer", defaults["trainer"]))
    for method in LOSSES.names():  # what the main job sets for FreqD is no default of another job
        if method not in names:
            drop = set(method_keys(method))
        elif not isinstance(given.get(f"{LOSSES.get(method).prefix}_filter", ""), str):
            drop = {f"{LOSSES.get(method).prefix}_alpha"}  # the user's coefficients say all of h
        else:
            drop = set()
        defaults = {key: value for key, value in defaults.items() if key not in drop}
    return defaults


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
