"""Draws docs/images/quality-size.svg from results/: quality against bytes per user or item.

python scripts/make_picture.py       # part of: make docs

A plain SVG, so that a test can hold the file against the results. GitHub and browsers draw it.
"""

import math
from pathlib import Path

from rows_files import ROOT, Rows, read_rows

PICTURE = ROOT / "docs" / "images" / "quality-size.svg"
DATASET = "ml-100k"
WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 56, 60
COLORS = {"BPR": "#3b4cc0", "alone": "#888888", "warm": "#888888"}
STUDENT = "#c0392b"
NAMES = {"BPR": "teacher (BPR)", "alone": "student alone", "warm": "student alone, warm"}
LINE = 15  # pixels between two labels


class Axes:
    """Where a number of bytes and a metric are in the picture."""

    def __init__(self, bytes_: list[float], values: list[float]) -> None:
        self.low, self.high = math.log2(min(bytes_)) - 0.5, math.log2(max(bytes_)) + 0.5
        spread = max(values) - min(values)
        self.bottom, self.top = min(values) - 0.08 * spread, max(values) + 0.08 * spread

    def x(self, bytes_: float) -> float:
        """Pixels from the left; the axis is logarithmic."""
        share = (math.log2(bytes_) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


Points = dict[str, tuple[float, float]]


def points_of(rows: Rows) -> Points:
    """Bytes for each user or item, and the test metric, of what has both."""
    names = [rows.first, *(name for name in rows.students if not name.startswith("team "))]
    sizes = {name: rows.bytes_per_entity(name) for name in names}
    return {name: (size, rows.mean(name)) for name, size in sizes.items() if size}


def draw(points: Points, title: str) -> str:
    """The picture of one dataset: a dot for each row, with its name."""
    axes = Axes([x for x, _ in points.values()], [y for _, y in points.values()])
    parts = [*_frame(title, axes, sorted({x for x, _ in points.values()}))]
    for size in sorted({x for x, _ in points.values()}):
        column = {what: y for what, (x, y) in points.items() if x == size}
        parts += _column(axes, size, column)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _column(axes: Axes, size: float, column: dict[str, float]) -> list[str]:
    """Dots of one size from the best down, and their labels, pushed down where they would touch."""
    parts, free = [], -math.inf
    for what, value in sorted(column.items(), key=lambda pair: -pair[1]):
        x, y = axes.x(size), axes.y(value)
        at = max(y + 4, free)
        free = at + LINE
        color = COLORS.get(what, STUDENT)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"/>',
            f'<path d="M{x + 6:.1f} {y:.1f}L{x + 22:.1f} {at - 4:.1f}" stroke="#bbb"/>',
            _text(x + 26, at, f"{NAMES.get(what, what)}  {value:.4f}", fill=color),
        ]
    return parts


def _frame(title: str, axes: Axes, sizes: list[float]) -> list[str]:
    """Background, title, axes and ticks."""
    floor = HEIGHT - BOTTOM
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 30, title, size=16),
        f'<path d="M{LEFT} {TOP - 10}V{floor}H{WIDTH - 20}" fill="none" stroke="#444"/>',
        _text(LEFT, HEIGHT - 14, "bytes for each user or item (less is better)"),
    ]
    for size in sizes:
        parts.append(_text(axes.x(size), floor + 20, f"{size:g}", anchor="middle"))
    for step in range(5):
        value = axes.bottom + (axes.top - axes.bottom) * step / 4
        parts.append(_text(LEFT - 8, axes.y(value) + 4, f"{value:.3f}", anchor="end"))
    return parts


def _text(
    x: float, y: float, words: str, fill: str = "#222", anchor: str = "start", size: int = 13
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{words}</text>"


def pages() -> dict[Path, str]:
    """The picture of now."""
    (shown,) = (rows for rows in read_rows() if rows.dataset == DATASET)
    seeds = f"{len(shown.seeds)} seeds"
    return {PICTURE: draw(points_of(shown), f"{DATASET}: test NDCG@10, mean of {seeds}")}


if __name__ == "__main__":
    PICTURE.write_text(pages()[PICTURE], encoding="utf-8", newline="\n")
    print(f"{PICTURE}: drawn from results/")
