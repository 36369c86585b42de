"""Shares of the gap beside published ones: what papers print, ours, and the config of ours."""

from dataclasses import dataclass
from typing import Any, Optional

import yaml
from results_files import ROOT, Comparison
from rows_files import ALONE, BY_TEAM, Rows

PUBLISHED = ROOT / "results" / "published.yaml"
OURS_ONLY = ("FreqD", "FreqRank", "FreqRank from the SVD", BY_TEAM)
HEAD = ["method", "published share of the gap", "ours", "config of ours"]
RULE = ["---", "---:", "---:", "---"]


@dataclass(frozen=True)
class Share:
    """A share of the gap (1: as good as the teacher; None: no gap), and the file of its config."""

    value: Optional[float]
    config: str


def tables(datasets: list[Rows], comparisons: list[Comparison]) -> str:
    """A section for each dataset that has published shares."""
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    source = f"[{published.pop('source')}]({published.pop('url')})"
    parts = []
    for dataset, shares in published.items():
        rows = next((one for one in datasets if one.dataset == dataset), None)
        compared = next(one for one in comparisons if one.section == dataset)
        methods = [*shares, *(name for name in OURS_ONLY if name not in shares)]
        ours = {method: share_of(method, rows, compared) for method in methods}
        lines = [
            _line(method, shares.get(method), ours[method])
            for method in methods
            if method in shares or ours[method]
        ]
        table = "".join(f"| {' | '.join(line)} |\n" for line in [HEAD, RULE, *lines])
        parts.append(f"**{dataset}**, {compared.pair}; published: {source}.\n\n{table}")
    return "\n".join(parts)


def share_of(method: str, rows: Optional[Rows], compared: Comparison) -> Optional[Share]:
    """Ours: of the rows, where they have the method, else of the earlier comparison."""
    if rows and method in rows.students:
        alone = rows.mean(ALONE)
        gap = rows.mean(rows.first) - alone
        value = (rows.mean(method) - alone) / gap if gap > 0 else None
        config = f"experiments/rows/{rows.dataset}.yaml"
        return Share(value, config)
    if method not in compared.rows:
        return None
    config = f"results/comparisons/{compared.section}/frozen.yaml"
    return Share(compared.rows[method]["gap_closed"], config)


def _line(method: str, published: Optional[Any], ours: Optional[Share]) -> list[str]:
    text, link = "not run", ""
    if ours:
        text = "no gap" if ours.value is None else f"{100 * ours.value:.0f} %"
        words = ours.config.rpartition("/")[0].partition("/")[2]
        link = f"[{words}](../{ours.config})"
    return [method, "" if published is None else f"{published} %", text, link]
