"""A picture of one run: quality against bytes. Needs matplotlib, and computes nothing."""

from pathlib import Path
from typing import Any

from recbole_freqd.core.errors import require
from recbole_freqd.core.files import write_atomically

# Okabe and Ito's colours, told apart with any kind of colour vision; markers differ as well.
_LOOKS = {
    **dict.fromkeys(("teacher", "team", "member"), ("#7F7F7F", "s")),
    "teacher_int8": ("#7F7F7F", "D"),
    **dict.fromkeys(("cut", "student_alone", "student_warm"), ("#000000", "^")),
    "distilled": ("#D55E00", "o"),
}


def quality_plot(rows: list[dict[str, Any]], metric: str, title: str, folder: Path) -> None:
    """Writes ``results.png``: the test metric of every row against its bytes per user and item.

    Args:
        rows: See ``results.json`` in ``docs/quick_start.md``.
        metric: Of the test split; rows without it are no points.
        title: Of the picture. folder: Where it goes.

    Raises:
        ConfigError: matplotlib is not installed.
        CheckpointError: The picture cannot be written.
    """
    require("matplotlib", "plot", "A plot")
    from matplotlib.figure import Figure  # without pyplot: no window, nothing global

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if metric in (row["test"] or {}):
            colour, marker = _LOOKS[row["role"]]
            point = row["bytes_per_entity"], row["test"][metric]
            axes.plot(*point, marker, color=colour, markersize=7)
            axes.annotate(row["label"], point, (6, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("bytes per user and item")
    axes.set_ylabel(f"test {metric}")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.margins(0.18, 0.1)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    write_atomically(
        folder / "results.png", lambda name: figure.savefig(name, format="png", dpi=140)
    )
