"""The script without a command: a teacher, and every way to make it small, in one table."""

import argparse
from pathlib import Path
from typing import Any

from recbole_freqd import __version__
from recbole_freqd.core.errors import ConfigError, FreqDError
from recbole_freqd.jobs.defaults import config_files, fill_in
from recbole_freqd.jobs.progress import print_line


def train_and_report(options: argparse.Namespace, launched: dict[str, Any]) -> None:
    """Trains a method beside the baselines that it has to beat, prints the table and saves it.

    Args:
        options: Of the script.
        launched: What RecBole's Config needs in one of several processes.
    """
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import lineup
    from recbole_freqd.runtime.processes import Processes

    model, dataset, _, given = fill_in(options, files)
    config = make_config(model, dataset, None, given.with_keys(launched))
    table = Table(Processes.of(config))
    table.run(lineup.asked_for(config))
    if config["trainer"]:
        entries = lineup.baselines(config)
        if "trainer" in given.of_the_job:
            entries += lineup.offered(config)
        for entry in entries:
            table.try_to_run(entry)
    table.processes.from_first(
        lambda: report(config, table.finished(), table.left_out, Path(options.output_dir))
    )


class Table:
    """Rows as they are made.

    Args:
        processes: All that train together; the first one does the measuring outside of training.

    Attributes:
        left_out: What has no row, and why.
    """

    def __init__(self, processes: Any) -> None:
        self.processes = processes
        self.left_out: dict[str, str] = {}
        self._rows: list[Any] = []

    def try_to_run(self, entry: Any) -> None:
        """Runs what is only offered; where that fails, the table says why."""
        try:
            self.run(entry)
        except FreqDError as error:
            self.left_out[entry.label] = str(error)

    def run(self, entry: Any) -> None:
        """Trains a student, and evaluates its teacher unless that has a row already.

        Args:
            entry: A :class:`recbole_freqd.jobs.lineup.Entry`.
        """
        from recbole_freqd.jobs import rows
        from recbole_freqd.jobs import run as runs

        if self.processes.is_first:
            print_line(f"\n{entry.label}")
        run = runs.run(entry.config, brief=True, untrained=entry.untrained)
        self._rows.append(rows.student_row(entry.role, entry.label, run))
        if entry.shows_teacher:
            self.processes.from_first(lambda: self._evaluate_teacher(run))

    def _evaluate_teacher(self, run: Any) -> None:
        """Adds rows for teachers without one; for the first teacher also one in int8."""
        from recbole_freqd.jobs import rows

        teacher, known = run.trainer.teacher, {row.values["checkpoint"] for row in self._rows}
        is_first = not any(row.values["role"] in ("teacher", "team") for row in self._rows)
        self._rows += rows.teacher_rows(run.data, teacher, known)
        if is_first:
            row = rows.int8_row(run.data, teacher)
            if isinstance(row, str):
                self.left_out["teacher in int8"] = row
            else:
                self._rows.append(row)

    def finished(self) -> list[dict[str, Any]]:
        """All rows, in order."""
        from recbole_freqd.jobs.rows import finished

        return finished(self._rows)


def report(config: Any, rows: list[dict[str, Any]], left_out: dict[str, str], folder: Path) -> None:
    """Prints the table; saves ``results.json`` and ``results.md`` in a new folder.

    Raises:
        CheckpointError: They cannot be saved. The table is printed before.
    """
    from recbole_freqd.config.complete import trainer_names
    from recbole_freqd.core.files import new_checkpoint_path, write_json, write_text
    from recbole_freqd.jobs import tables
    from recbole_freqd.jobs.picture import quality_plot
    from recbole_freqd.jobs.verdict import best_student, describe_rows

    names = "+".join(trainer_names(config["trainer"])) or "alone"
    stem = f"{config['dataset']}-{config['model']}-{names}"
    metric, bigger = config["valid_metric"].lower(), config["valid_metric_bigger"]
    table = tables.markdown_table(rows, metric)
    words = describe_rows(rows, metric, bigger, left_out)
    print_line(f"\n{config['dataset']}, seed {config['seed']}, student {config['model']}\n{table}")
    print_line(f"\n{words}")
    print_line(_how_to_use(best_student(rows, metric, bigger)["checkpoint"]))
    home = Path(new_checkpoint_path(folder, stem)).with_suffix("")
    content = {"dataset": config["dataset"], "seed": config["seed"], "version": __version__}
    content |= {"config": config.final_config_dict, "rows": rows}
    write_json(home / "results.json", content)
    write_text(home / "results.md", f"# {stem}\n\n{table}\n\n{words}\n")
    made = "results.json, results.md"
    try:
        quality_plot(rows, metric, f"{config['dataset']}, seed {config['seed']}", home)
        made += ", results.png"
    except ConfigError:  # nobody asked for a picture
        pass
    print_line(f"Results: {home}: {made}")


def _how_to_use(student: str) -> str:
    """A command, and lines of Python that load a student with RecBole alone."""
    from recbole_freqd.compat import shims_installed

    needed = (
        "RecBole 1.2.1 itself does not run on the packages installed here. Repair that before you\n"
        "import it:\n"
        "    import recbole_freqd; recbole_freqd.register()\n"
        "On the packages that RecBole was made for, you do not need recbole_freqd.\n"
    )
    return (
        f"Its lists for all users:\n    python run_recbole_freqd.py recommend {student}\n"
        f"It is a plain RecBole checkpoint. Load it with RecBole alone:\n"
        "    from recbole.quick_start import load_data_and_model\n"
        f"    config, model, dataset, train, valid, test = load_data_and_model({student!r})\n"
        f"{needed if shims_installed() else ''}"
    )
