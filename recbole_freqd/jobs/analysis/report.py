"""The report of ``analyze``: figures, CSV, JSON, and one self-contained HTML file."""

import base64
import html
from pathlib import Path
from typing import Any, Optional

import pandas as pd

from recbole_freqd.core.files import write_json, write_text
from recbole_freqd.jobs.analysis import figures as plots
from recbole_freqd.jobs.tables import as_table

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption, .note { color: #444; font-size: .92rem; }
.scroll { overflow-x: auto; }
"""
_FIGURES = (
    (
        "losses",
        "What is not learnt yet",
        "‖P(S) − T‖² by band of frequencies, relative to the teacher's energy there: 0 is all "
        "learnt, 1 is no better than knowing nothing. Colour: {metric} on the validation split.",
    ),
    (
        "energy",
        "Where the energy lies",
        "Shares of ‖T‖² and ‖S‖². Black: the share of all frequencies (eigenvalues) that a band "
        "has, which is where features without any structure would lie.",
    ),
    (
        "response",
        "What the filter asks for",
        "h(λ), and its square: the weight of a frequency in the loss for squared distance, all "
        "entities and no edge dropout.",
    ),
    (
        "filter",
        "The teacher before and after its filter",
        "Energy of what was taught, less each user's mean, by frequency of the filter's own graph.",
    ),
)
_METRIC = "recall@20"  # as in the paper's Figure 1


def write(results: dict[str, Any], folder: Path) -> Path:
    """Writes everything into ``folder``; returns the path of ``report.html``."""
    drawn = {
        "losses": plots.losses_figure(results, _METRIC),
        "energy": plots.energy_figure(results),
        "response": plots.response_figure(results),
    }
    if results["filter"]:
        drawn["filter"] = plots.filter_figure(results)
    images = {name: plots.save(figure, folder, name)[1] for name, figure in drawn.items()}
    write_json(folder / "analysis.json", results)
    write_text(folder / "bands.csv", _csv(results))
    report = folder / "report.html"
    write_text(report, _page(results, images))
    return report


def metrics_table(results: dict[str, Any]) -> list[list[str]]:
    """Head and rows: the teacher, then the students."""
    models = [results["teacher"], *results["students"]]
    metrics = list(models[0]["valid"])
    head = ["", "dimensions", "parameters", *(f"valid {name}" for name in metrics)]
    for side in results["sides"]:
        head.append(f"{side}s: not learnt, all bands")
    rows = []
    for model in models:
        row = [model["name"], "/".join(map(str, model["dimensions"])), f"{model['parameters']:,}"]
        row += [_number(model["valid"].get(name)) for name in metrics]
        for side, facts in results["sides"].items():
            whole = sum(facts["teacher_energy"])
            own = model["sides"][side]["loss"] if "sides" in model else None
            row.append(_number(sum(own) / whole if own and whole else None))
        rows.append(row)
    return [head, *rows]


def notes(results: dict[str, Any]) -> list[str]:
    """Writes the notes that a reader of the figures needs."""
    graph, words = results["graph"], []
    words.append(
        f"P, the map from a student to the teacher: {results['projection']}. Metrics are of the "
        "validation split; the test split was not opened."
    )
    for side, facts in results["sides"].items():
        whole = sum(facts["teacher_energy"]) or 1.0
        words.append(
            f"{side.capitalize()}s: {facts['entities']:,} entities, {facts['edges']:,} edges "
            f"(k = {graph['k']}), bands {facts['form']}; {facts['isolated']:,} have no neighbour, "
            f"which is frequency 0, and {facts['teacher_isolated'] / whole:.1%} of the teacher's "
            "energy."
        )
    if results["filter"]:
        facts = results["filter"]
        words.append(
            f"What {facts['student']} was taught was filtered on the {facts['side']}s' graph of "
            f"shrunk cosines (k = {facts['k']}, s = {facts['shrinkage']:g}) with α = "
            f"{facts['alpha']:g}; bands {facts['form']}."
        )
    words.append("RecBole's padding entity is in nothing.")
    return words


def _csv(results: dict[str, Any]) -> str:
    """One line for each side, band and student."""
    edges = results["bands"]
    rows = [
        {
            "side": side,
            "band": band + 1,
            "lambda_from": low,
            "lambda_to": high,
            "eigenvalues": facts["eigenvalues"][band],
            "teacher_energy": facts["teacher_energy"][band],
            "student": student["name"],
            "student_energy": student["sides"][side]["energy"][band],
            "loss": student["sides"][side]["loss"][band],
            "relative_loss": student["sides"][side]["relative"][band],
        }
        for side, facts in results["sides"].items()
        for band, (low, high) in enumerate(zip(edges, edges[1:]))
        for student in results["students"]
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _page(results: dict[str, Any], images: dict[str, Path]) -> str:
    title = f"Frequencies: {len(results['students'])} students of one teacher, {results['dataset']}"
    parts = [f"<h1>{html.escape(title)}</h1>", _html_table(metrics_table(results))]
    parts += [f'<p class="note">{html.escape(text)}</p>' for text in notes(results)]
    for name, head, caption in (figure for figure in _FIGURES if figure[0] in images):
        data = base64.b64encode(images[name].read_bytes()).decode()
        words = html.escape(caption.format(metric=_METRIC))
        parts.append(
            f'<h2>{head}</h2><figure><img alt="{head}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>"
        )
    for side in results["sides"]:
        parts.append(f"<h2>Numbers: {side}s</h2>{_html_table(_band_table(results, side))}")
    if results["filter"]:
        parts.append(f"<h2>Numbers: the filter</h2>{_html_table(_filter_table(results))}")
    parts.append(f'<p class="note">recbole_freqd {results["version"]}</p>')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{_CSS}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _band_table(results: dict[str, Any], side: str) -> list[list[str]]:
    facts, edges = results["sides"][side], results["bands"]
    head = ["λ", "frequencies", "teacher's energy"]
    head += [f"not learnt: {student['name']}" for student in results["students"]]
    whole = sum(facts["teacher_energy"]) or 1.0
    rows = [head]
    for band, (low, high) in enumerate(zip(edges, edges[1:])):
        rows.append(
            [f"{low:.2f} to {high:.2f}", f"{facts['eigenvalues'][band]:,.0f}",
             f"{facts['teacher_energy'][band] / whole:.1%}",
             *(_number(each["sides"][side]["relative"][band]) for each in results["students"])]
        )  # fmt: skip
    return rows


def _filter_table(results: dict[str, Any]) -> list[list[str]]:
    """The teacher's energy by band, before the filter and after it."""
    facts, edges = results["filter"], results["bands"]
    whole = sum(facts["before"]) or 1.0
    rows = [["λ", "frequencies", "before", "after", "left"]]
    for band, (low, high) in enumerate(zip(edges, edges[1:])):
        before, after = facts["before"][band], facts["after"][band]
        rows.append(
            [f"{low:.2f} to {high:.2f}", f"{facts['eigenvalues'][band]:,.0f}",
             f"{before / whole:.1%}", f"{after / whole:.1%}",
             _number(after / before if before else None)]
        )  # fmt: skip
    return rows


def _html_table(rows: list[list[str]]) -> str:
    return f'<div class="scroll">{as_table(rows, left=1, form="html")}</div>'


def _number(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.4f}"
