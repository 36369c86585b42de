"""Prints what jobs say: lines that any console can write, and one for every run of many."""

import sys
from collections import Counter, defaultdict
from typing import Any, Callable, Optional, TextIO

from recbole_freqd.core.errors import CheckpointError


def print_line(text: str, file: Optional[TextIO] = None) -> None:
    """Prints a line; nothing that was computed is lost to a console that cannot take it.

    What the console's encoding lacks is written as ``\\u...``; one that is closed or full gets
    nothing more.
    """
    file = file or sys.stdout
    try:
        encoding = getattr(file, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)
    except (OSError, ValueError):  # a pipe that nobody reads, a file that is closed
        pass


def save_or_say(save: Callable[[], Any], say: Callable[[str], None], content: str = "") -> None:
    """Saves something; if that fails, prints the reason and the content."""
    try:
        save()
    except CheckpointError as error:
        say(f"{error} {content}".rstrip())


class Countdown:
    """Counts runs down.

    What is left is reckoned from the runs of the same kind that were timed, else from all.

    Args:
        kinds: The kind of every run there will be, finished ones included.
        say: Where lines go.

    Example:
        >>> count = Countdown(["alone", "FD", "FD"], print)
        >>> count.skip("alone")
        >>> count.done("FD", "FD, seed 1: 0.25", 120.0)
        [2/3] FD, seed 1: 0.25 (2.0 min); about 2.0 min left
    """

    def __init__(self, kinds: list[str], say: Callable[[str], None]) -> None:
        self._left, self._all, self._say = Counter(kinds), len(kinds), say
        self._taken: dict[str, list[float]] = defaultdict(list)

    def skip(self, kind: str) -> None:
        """A run that was finished before."""
        self._left[kind] -= 1

    def done(self, kind: str, words: str, seconds: float) -> None:
        """A run that is finished now; says so."""
        self.skip(kind)
        self._taken[kind].append(seconds)
        place, left = self._all - sum(self._left.values()), self._seconds_left()
        ending = f"; about {format_seconds(left)} left" if left else ""
        self._say(f"[{place}/{self._all}] {words} ({format_seconds(seconds)}){ending}")

    def _seconds_left(self) -> Optional[float]:
        everything = _mean([one for taken in self._taken.values() for one in taken])
        return sum(
            count * (_mean(self._taken[kind]) if self._taken[kind] else everything)
            for kind, count in self._left.items()
        )


def format_seconds(seconds: float) -> str:
    """``45 s``, ``12.5 min`` or ``3.2 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
