"""Draws docs/images/quality-size-DATASET.svg from results/: quality against bytes per user or item.

python scripts/make_picture.py       # part of: make docs

One for each dataset of results/rows/. A plain SVG, so that a test can hold the file against the results. GitHub and browsers draw it.
"""

import math
from pathlib import Path

from rows_files import ROOT, Rows, read_rows

IMAGES = ROOT / "docs" / "images"
WIDTH, LOWEST = 760, 420  # pixels; higher where a column has many names
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 56, 60
COLORS = {"BPR": "#3b4cc0", "alone": "#888888", "warm": "#888888"}
STUDENT = "#c0392b"
NAMES = {"BPR": "teacher (BPR)", "alone": "student alone", "warm": "student alone, warm"}
LINE, NAME = 15, 215  # pixels: between two names of a column, and of the longest name


Points = dict[str, tuple[float, float]]


class Axes:
    """Where a number of bytes and a metric are in the picture."""

    def __init__(self, points: Points) -> None:
        bytes_, values = zip(*points.values())
        most = max(bytes_.count(size) for size in bytes_)
        self.floor = max(LOWEST - BOTTOM, TOP + LINE * most)
        spread = max(values) - min(values)
        self.bottom, self.top = min(values) - 0.08 * spread, max(values) + 0.08 * spread
        self.columns = _columns(sorted(set(bytes_)))

    def x(self, bytes_: float) -> float:
        """Pixels from the left; the axis is logarithmic, but leaves names their room."""
        return self.columns[bytes_]

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return self.floor - share * (self.floor - TOP)


def _columns(sizes: list[float]) -> dict[float, float]:
    """Pixels from the left of each size."""
    low, high = math.log2(sizes[0]) - 0.5, math.log2(sizes[-1]) + 0.5
    width = WIDTH - LEFT - RIGHT
    places = [LEFT + width * (math.log2(size) - low) / (high - low) for size in sizes]
    gap = min(NAME, 0.9 * width / max(1, len(sizes) - 1))
    return dict(zip(sizes, spread_out(places, gap, WIDTH - RIGHT)))


def _is_part(name: str) -> bool:
    """Whether a row only shows what a part of FreqRank is worth."""
    return name.startswith("team ") or name.endswith(("from the SVD", "untrained"))


def points_of(rows: Rows) -> Points:
    """Bytes for each user or item, and the test metric, of what has both."""
    names = [rows.first, *(name for name in rows.students if not _is_part(name))]
    sizes = {name: rows.bytes_per_entity(name) for name in names}
    return {name: (size, rows.mean(name)) for name, size in sizes.items() if size}


def draw(points: Points, title: str) -> str:
    """The picture of one dataset: a dot for each row, with its name."""
    axes, sizes = Axes(points), sorted({x for x, _ in points.values()})
    parts = [*_frame(title, axes, sizes)]
    for size in sizes:
        column = {what: y for what, (x, y) in points.items() if x == size}
        parts += _column(axes, size, column)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {axes.floor + BOTTOM}" '
        f'width="{WIDTH}" font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _column(axes: Axes, size: float, column: dict[str, float]) -> list[str]:
    """Dots of one size from the best down, and their labels."""
    parts, x = [], axes.x(size)
    ranked = sorted(column.items(), key=lambda pair: -pair[1])
    heights = spread_out([axes.y(value) + 4 for _, value in ranked], LINE, axes.floor - 4)
    for (what, value), at in zip(ranked, heights):
        y = axes.y(value)
        color = COLORS.get(what, STUDENT)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"/>',
            f'<path d="M{x + 6:.1f} {y:.1f}L{x + 22:.1f} {at - 4:.1f}" stroke="#bbb"/>',
            _text(x + 26, at, f"{NAMES.get(what, what)}  {value:.4f}", fill=color),
        ]
    return parts


def spread_out(places: list[float], gap: float, end: float) -> list[float]:
    """Ascending places (pixels) pushed on, then back from the end, until a gap is between all."""
    spread: list[float] = []
    for place in places:
        spread.append(max(place, spread[-1] + gap) if spread else place)
    for at in reversed(range(len(spread))):
        spread[at] = min(spread[at], spread[at + 1] - gap if at + 1 < len(spread) else end)
    return spread


def _frame(title: str, axes: Axes, sizes: list[float]) -> list[str]:
    """Background, title, axes and ticks."""
    floor, height = axes.floor, axes.floor + BOTTOM
    parts = [
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 30, title, size=16),
        f'<path d="M{LEFT} {TOP - 10}V{floor}H{WIDTH - 20}" fill="none" stroke="#444"/>',
        _text(LEFT, height - 14, "bytes for each user or item (less is better)"),
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


def picture_of(dataset: str) -> Path:
    """Where the picture of a dataset is."""
    return IMAGES / f"quality-size-{dataset}.svg"


def pages() -> dict[Path, str]:
    """The pictures of now."""
    return {
        picture_of(rows.dataset): draw(
            points_of(rows), f"{rows.dataset}: test NDCG@10, mean of {len(rows.seeds)} seeds"
        )
        for rows in read_rows()
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: drawn from results/")
