"""The script without a command: teacher, student alone and distilled student in one table."""

import argparse
from pathlib import Path
from typing import Any

from recbole_freqd import __version__
from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.progress import print_line


def train_and_report(options: argparse.Namespace, launched: dict[str, Any]) -> None:
    """Trains a method beside the student alone, prints the table and saves it.

    Args:
        options: Of the script.
        launched: What RecBole's Config has to know in one of several processes.
    """
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import alone_config, make_config
    from recbole_freqd.jobs import run as runs

    model, dataset, _, given = fill_in(options, files)
    config = make_config(model, dataset, None, given.with_keys(launched))
    distilled = runs.run(config, brief=True) if config["trainer"] else None
    alone = runs.run(alone_config(config), brief=True)
    folder = Path(options.output_dir)
    alone.trainer.processes.from_first(
        lambda: report_run(config, runs.rows_of(distilled, alone), folder)
    )


def report_run(config: Any, rows: list[dict[str, Any]], folder: Path) -> None:
    """Prints the table; saves ``results.json`` and ``results.md`` in a folder of the run's own.

    Raises:
        CheckpointError: They cannot be saved; the table has been printed.
    """
    from recbole_freqd.core.files import new_checkpoint_path, write_json, write_text
    from recbole_freqd.jobs import tables

    stem = f"{config['dataset']}-{config['model']}-{rows[-1]['trainer'] or 'alone'}"
    metrics = [name for name in rows[-1]["test"] if name.startswith(("recall@", "ndcg@"))]
    metrics = metrics or list(rows[-1]["test"])
    words = tables.describe_gains(rows, config["valid_metric"].lower())
    print_line(f"\n{config['dataset']}, seed {config['seed']}")
    table = tables.markdown_table(rows, metrics)
    print_line(f"{table}\n\n{words}")
    print_line(_how_to_load(rows[-1]["checkpoint"]))
    home = Path(new_checkpoint_path(folder, stem)).with_suffix("")
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
    text = f"# {stem}\n\n{table}\n\n{words}\n"
    write_text(home / "results.md", text)
    print_line(f"Results: {home}/results.json and results.md")


def _how_to_load(student: str) -> str:
    """Lines of Python that load a student with RecBole alone."""
    from recbole_freqd.compat import shims_installed

    needed = (
        "RecBole 1.2.1 itself does not run on the packages installed here; before its import,\n"
        "    import recbole_freqd; recbole_freqd.register()\n"
        "repairs that. On the packages it was made for, nothing of ours is needed.\n"
    )
    return (
        f"The student is a plain RecBole checkpoint: {student}\n"
        "Load it with RecBole alone:\n"
        "    from recbole.quick_start import load_data_and_model\n"
        f"    config, model, dataset, train, valid, test = load_data_and_model({student!r})\n"
        f"{needed if shims_installed() else ''}"
    )
