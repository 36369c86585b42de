"""The figures of ``analyze`` and ``sweep``. They draw what they are given and compute nothing.

Colours are those of Okabe and Ito, and cividis: told apart with any colour vision, and in grey.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.core.files import write_atomically

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREY = "#8C8C8C"
_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.parse_math": False,  # a dollar in the name of a dataset is a dollar
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "recbole_freqd",
}
FREQUENCY = "graph frequency λ (0: smooth, 2: rough)"


def save(figure: Any, folder: Path, stem: str) -> list[Path]:
    """Writes a figure as ``stem.png`` and ``stem.svg``."""
    import matplotlib

    paths = []
    with matplotlib.rc_context(_STYLE):
        for kind, facts in (("png", {"Software": None}), ("svg", {"Date": None})):
            paths.append(folder / f"{stem}.{kind}")
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=140, bbox_inches="tight", metadata=facts)
            data = content.getvalue() if kind == "svg" else _with_palette(content)
            write_atomically(paths[-1], _writer(data))
    return paths


def _with_palette(content: io.BytesIO) -> bytes:
    """A PNG in 256 colours, which is a third of its size and looks the same."""
    from PIL import Image  # matplotlib needs it, so it is there

    reduced = io.BytesIO()
    with Image.open(content) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            reduced, "PNG", optimize=True
        )
    return reduced.getvalue()


def _writer(content: bytes) -> Callable[[str], Any]:
    return lambda path: Path(path).write_bytes(content)


def response_figure(results: dict[str, Any]) -> Any:
    """h(λ) and the weight h(λ)² of every filter."""
    figure, ((h_axis, weight_axis),) = _panels(2, sharey=False)
    for place, curve in enumerate(results["responses"]):
        look = {"color": COLOURS[place % 7], "linestyle": LINES[place % 4]}
        h_axis.plot(curve["lambda"], curve["h"], label=curve["name"], **look)
        weight_axis.plot(curve["lambda"], curve["weight"], **look)
    lowest = min(0.0, *(min(curve["h"]) for curve in results["responses"]))
    for axis, title, label, low in (
        (h_axis, "Filter", "response h(λ)", lowest),
        (weight_axis, "What the loss is weighted by", "weight h(λ)²", 0.0),
    ):
        axis.set_title(title, loc="left")
        axis.set(xlabel=FREQUENCY, ylabel=label, xlim=(0, 2))
        axis.set_ylim(bottom=low - 0.05 if low < 0 else 0)
        if low < 0:
            axis.axhline(0, color=GREY, linewidth=0.8)
    _legend(figure, h_axis, columns=2)
    return figure


def losses_figure(results: dict[str, Any], metric: str = "recall@20") -> Any:
    """What each student has not learnt of each band, coloured by how well it ranks.

    Below, where there are several students, the same relative to the first of them: the differences
    that the scale of the upper row hides.
    """
    import matplotlib

    students = results["students"]
    values = [student["valid"].get(metric) for student in students]
    known = [value for value in values if value is not None]
    rows = 2 if len(students) > 1 else 1
    figure, axes = _panels(2, rows=rows)
    colours = matplotlib.colormaps["cividis"]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.0 if high > low else 0.01  # so that equal ones have a scale
    norm = matplotlib.colors.Normalize(low - room, high + room)
    for column, side in enumerate(results["sides"]):
        first = students[0]["sides"][side]["relative"]
        for place, (student, value) in enumerate(zip(students, values)):
            # The lightest end of the map would be lost on white paper.
            colour = GREY if value is None else colours(0.85 * float(norm(value)))
            colour = colour if len(known) > 1 else COLOURS[0]
            look = _look(place, colour)
            own = student["sides"][side]["relative"]
            lines = [_numbers(own), _ratios(own, first)]
            for axis, line in zip(axes[:, column], lines):
                axis.plot(centres(results["bands"]), line, label=student["name"], **look)
        axes[0, column].set_ylim(bottom=0)
        axes[0, column].set_title(_side_title(results, side), loc="left")
        axes[-1, column].set(xlabel=FREQUENCY, xlim=(0, 2))
    axes[0, 0].set_ylabel("not learnt: loss of band\n/ teacher's energy in it")
    if rows == 2:
        axes[1, 0].set_ylabel(f"not learnt, as a multiple of\n{students[0]['name']}")
    _legend(figure, axes[0, 0], columns=2)
    if len(known) > 1:
        shown = matplotlib.colors.ListedColormap([colours(0.85 * i / 255) for i in range(256)])
        scale = matplotlib.cm.ScalarMappable(norm, shown)
        bar = figure.colorbar(scale, ax=axes, fraction=0.04, pad=0.02)
        bar.set_label(f"validation {_spelt(metric)}")
        bar.outline.set_visible(False)
    return figure


def energy_figure(results: dict[str, Any]) -> Any:
    """How the energy of the teacher's and the students' own features lies in the bands."""
    figure, (axes,) = _panels(2)
    edges = results["bands"]
    widths = [high - low for low, high in zip(edges, edges[1:])]
    for axis, side in zip(axes, results["sides"]):
        facts = results["sides"][side]
        taught = _shares(facts["teacher_energy"])
        axis.bar(
            edges[:-1], taught, widths, align="edge", color="#D9D9D9", edgecolor="white",
            label="teacher",
        )  # fmt: skip
        lonely = 100 * facts["teacher_isolated"] / (sum(facts["teacher_energy"]) or 1.0)
        if lonely > 1:  # per cent: less could not be seen
            axis.bar(
                edges[:1], [lonely], widths[:1], align="edge", color="none", edgecolor="#666666",
                hatch="///", linewidth=0, label="teacher: of entities without neighbours",
            )  # fmt: skip
        for place, student in enumerate(results["students"]):
            axis.plot(
                centres(edges), _shares(student["sides"][side]["energy"]),
                label=student["name"], **_look(place, COLOURS[place % 7]),
            )  # fmt: skip
        counts = _shares(facts["eigenvalues"])
        axis.hlines(
            counts, edges[:-1], edges[1:], color="black", linewidth=1.2,
            label="share of all frequencies",
        )  # fmt: skip
        axis.set_title(_side_title(results, side), loc="left")
        axis.set(xlabel=FREQUENCY, xlim=(0, 2))
    axes[0].set_ylim(0, 1.08 * axes[0].get_ylim()[1])
    axes[0].set_ylabel("share of energy (%)")
    _legend(figure, *axes, columns=2)
    return figure


def filter_figure(results: dict[str, Any]) -> Any:
    """How the teacher's energy lies in the bands of the filter's graph, before it and after."""
    facts, edges = results["filter"], results["bands"]
    figure, ((axis, ratio_axis),) = _panels(2, sharey=False)
    widths = [high - low for low, high in zip(edges, edges[1:])]
    whole = sum(facts["before"]) or 1.0
    before, after = ([100 * value / whole for value in facts[key]] for key in ("before", "after"))
    axis.bar(
        edges[:-1], before, widths, align="edge", color="#D9D9D9", edgecolor="white",
        label="teacher before the filter",
    )  # fmt: skip
    name = f"teacher after it, α = {facts['alpha']:g}"
    axis.plot(centres(edges), after, label=name, **_look(1, COLOURS[1]))
    axis.set_title(_side_title(results, facts["side"]), loc="left")
    axis.set(xlabel=FREQUENCY, xlim=(0, 2), ylabel="energy (% of that before)")
    left = _ratios(facts["after"], facts["before"])
    ratio_axis.plot(centres(edges), left, **_look(1, COLOURS[1]))
    wanted = [(1 - facts["alpha"] * centre) ** 2 for centre in centres(edges)]
    ratio_axis.plot(centres(edges), wanted, color="black", linewidth=1.2, label="(1 - αλ)²")
    ratio_axis.set_title("What is left", loc="left")
    ratio_axis.set(xlabel=FREQUENCY, xlim=(0, 2), ylabel="after / before")
    ratio_axis.set_ylim(bottom=0)
    _legend(figure, axis, ratio_axis, columns=3)
    return figure


def sweep_figure(sweep: dict[str, Any]) -> Any:
    """A metric against a parameter: mean over the seeds, and a band of one sd where there are.

    Values of which a run has failed are named in the title instead.
    """
    from matplotlib.ticker import MaxNLocator

    figure, ((axis,),) = _panels(1)
    points = [point for point in sweep["points"] if point["mean"] is not None]
    failed = [str(point["value"]) for point in sweep["points"] if point["mean"] is None]
    numeric = all(isinstance(point["value"], (int, float)) for point in points)
    places = [point["value"] for point in points] if numeric else list(range(len(points)))
    means, sds = ([point[key] for point in points] for key in ("mean", "sd"))
    name = sweep["label"]
    line = "-" if numeric else "none"  # between names there is nothing
    axis.plot(places, means, color=COLOURS[0], marker="o", linestyle=line, label=name)
    if numeric:
        _sd_band(axis, places, means, sds, COLOURS[0])
    elif all(sd is not None for sd in sds):
        axis.errorbar(places, means, sds, color=COLOURS[0], fmt="none", capsize=4)
    ends = [min(places), max(places)]
    for place, who in enumerate(("teacher", "alone"), start=1):
        level = sweep.get(who)
        if level is None:
            continue
        words = {"teacher": "teacher", "alone": "student alone"}[who]
        look = {"color": COLOURS[place], "linestyle": LINES[place], "label": words}
        axis.plot(ends, [level["mean"]] * 2, **look)
        _sd_band(axis, ends, [level["mean"]] * 2, [level["sd"]] * 2, COLOURS[place], 0.12)
    seeds = len(sweep["seeds"])
    spread = f"mean ± sd of {seeds} seeds" if seeds > 1 else f"one seed, {sweep['seeds'][0]}"
    left_out = f"; failed: {', '.join(failed)}" if failed else ""
    axis.set_title(f"{sweep['dataset']}, {spread}{left_out}", loc="left")
    axis.set(xlabel=sweep["parameter_label"], ylabel=f"validation {_spelt(sweep['metric'])}")
    axis.yaxis.set_major_locator(MaxNLocator(6))
    if not numeric:
        axis.set_xticks(places, [str(point["value"]) for point in points])
    _legend(figure, axis, columns=3)
    return figure


def centres(edges: Sequence[float]) -> list[float]:
    """The middles of bands."""
    return [(low + high) / 2 for low, high in zip(edges, edges[1:])]


def _sd_band(
    axis: Any,
    places: Sequence[float],
    means: Sequence[float],
    sds: Sequence[Optional[float]],
    colour: str,
    alpha: float = 0.2,
) -> None:
    if all(sd is not None for sd in sds):
        below, above = (
            [mean + sign * (sd or 0.0) for mean, sd in zip(means, sds)] for sign in (-1, 1)
        )
        axis.fill_between(places, below, above, color=colour, alpha=alpha, linewidth=0)


def _panels(columns: int, rows: int = 1, *, sharey: bool = True) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns); rows share the x axis, columns perhaps the y axis."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        size = 9.6 if columns > 1 else 6.4, 3.9 if rows == 1 else 6.4
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(
            rows, columns, sharex="col", sharey="row" if sharey else False, squeeze=False
        )
    return figure, axes


def _look(place: int, colour: Any) -> dict[str, Any]:
    """Line and marker of a student; later ones are smaller, so that nobody hides another."""
    return {
        "color": colour,
        "linestyle": LINES[place % 4],
        "marker": MARKERS[place % 7],
        "markersize": max(10.0 - 2.0 * place, 4.0),
        "markerfacecolor": "none" if place % 2 == 0 else colour,
        "markeredgewidth": 1.5,
        "clip_on": False,  # a marker on the axis is whole
    }


def _numbers(values: Sequence[Optional[float]]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _ratios(values: Sequence[Optional[float]], others: Sequence[Optional[float]]) -> list[float]:
    return [
        value / other if other else float("nan")
        for value, other in zip(_numbers(values), _numbers(others))
    ]


def _legend(figure: Any, *axes: Any, columns: int) -> None:
    """Below the panels, each name once."""
    import matplotlib

    found: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels()):
            found.setdefault(name, handle)
    found = {
        name: found[name] for name in sorted(found, key=lambda name: not name.startswith("teacher"))
    }
    with matplotlib.rc_context(_STYLE):
        figure.legend(
            found.values(), found.keys(), loc="outside lower left", ncols=columns, handlelength=2.6
        )


def _spelt(metric: str) -> str:
    return metric.replace("ndcg", "NDCG").replace("recall", "Recall")


def _side_title(results: dict[str, Any], side: str) -> str:
    return f"{side.capitalize()}s of {results['dataset']}"


def _shares(values: Sequence[float]) -> list[float]:
    whole = sum(values) or 1.0
    return [100 * value / whole for value in values]
