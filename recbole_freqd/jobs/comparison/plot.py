"""Draws figures from results; computes nothing. Needs matplotlib."""

from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import require
from recbole_freqd.core.files import write_atomically
from recbole_freqd.jobs.comparison.beside import NAMES, role_of

# Okabe and Ito's colours: any kind of colour vision tells them apart. Markers differ as well.
_BLUE, _ORANGE, _GREY, _BLACK = "#0072B2", "#D55E00", "#7F7F7F", "#000000"


def comparison_plot(results: dict[str, Any], path: Path) -> None:
    """Draws a dot for the mean of every method, a bar for the sd, and a tick for each seed.

    Args:
        results: See :func:`recbole_freqd.compare`.
        path: Of the picture; its suffix sets the format (``.png``, ``.svg``, ``.pdf``).

    Raises:
        ConfigError: matplotlib is not installed.
        CheckpointError: The picture cannot be written.
    """
    figure = comparison_figure(results)
    kind = path.suffix[1:]
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=160))


def comparison_figure(results: dict[str, Any]) -> Any:
    """Makes the figure of :func:`comparison_plot`, best method on top, for a notebook or more."""
    require("matplotlib", "plot", "A plot")
    from matplotlib.figure import Figure  # without pyplot: no window, nothing global

    metric = results["metric"]
    rows = [row for row in results["table"] if metric in row["test"] and not row["failed"]]
    rows.sort(key=lambda row: row["test"][metric]["mean"])
    figure = Figure(figsize=(6.4, 1.3 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(rows):
        colour, marker = _look(row["what"], results["reference"])
        mean, sd = row["test"][metric]["mean"], row["test"][metric]["sd"]
        seeds = [cell["test"][metric] for cell in results["cells"][row["what"]]]
        axes.plot(seeds, [height] * len(seeds), "|", color=colour, alpha=0.5, markersize=8)
        axes.errorbar(mean, height, xerr=sd, fmt=marker, color=colour, capsize=3, markersize=6)
    names = [NAMES.get(row["what"], row["what"]) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_ylabel("method")
    count = len(results["seeds"])
    spread = f"mean ± sd over {count} seeds; a tick for each" if count > 1 else "one seed"
    axes.set_xlabel(f"test {_metric(metric)} ({spread})")
    axes.set_title(
        f"{results['dataset']}: {results['teacher_model']} → {results['model']}",
        fontsize=10,
        parse_math=False,  # a dollar in the name of a dataset is a dollar
    )
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _look(what: str, reference: str) -> tuple[str, str]:
    """Colour and marker of a row."""
    role = role_of(what)
    if role in ("teacher", "member", "teacher_int8"):
        return _GREY, "s"
    if role != "distilled":
        return _BLACK, "^"
    return (_ORANGE, "D") if what == reference else (_BLUE, "o")


def _metric(name: str) -> str:
    """``ndcg@10`` as printed."""
    short = ("ndcg", "mrr", "map")
    head, _, tail = name.partition("@")
    return f"{head.upper() if head in short else head.capitalize()}@{tail}"
