"""What the benchmarks share: medians, and results as JSON and Markdown with versions and commit."""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any, Callable

import psutil

__all__ = ["MB", "Peak", "median", "save", "with_command_line"]

MB = 2**20


class Peak:
    """Highest resident memory of this process while open, sampled every 5 ms."""

    def __enter__(self) -> "Peak":
        self._process, self._stop = psutil.Process(), threading.Event()
        self.base = self.highest = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.highest = max(self.highest, self._process.memory_info().rss)
            sleep(0.005)

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()


def with_command_line(
    main: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    *,
    needs_data: bool = False,
) -> None:
    """Reads the command line, takes it away from RecBole, which would read it too, and runs."""
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--output_dir", default="benchmark_results", help="where results are saved")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    if needs_data and "RECBOLE_FREQD_DATA" not in os.environ:
        print("skipped: RECBOLE_FREQD_DATA names no folder of datasets")
        return
    import torch

    torch.set_num_threads(options.threads)
    main(options)


def save(name: str, title: str, rows: list[dict[str, Any]], options: dict[str, Any]) -> None:
    """Prints a table and writes ``<name>.json`` and ``<name>.md`` into the output folder."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    lines += [f"| {' | '.join(str(row[head]) for head in heads)} |" for row in rows]
    facts = versions()
    text = f"## {title}\n\n" + "\n".join(lines) + "\n\n"
    text += ", ".join(f"{key} {value}" for key, value in {**facts, **options}.items()) + "\n"
    folder = Path(options["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    found = {"title": title, "rows": rows, "versions": facts, "options": options}
    (folder / f"{name}.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print(text)


def versions() -> dict[str, str]:
    """Of everything whose version changes a time, and the commit."""
    import numpy
    import recbole
    import scipy
    import torch

    import recbole_freqd

    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return {
        "recbole_freqd": recbole_freqd.__version__,
        "commit": commit or "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "recbole": recbole.__version__,
    }
