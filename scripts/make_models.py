"""Writes the table of docs/models.md from what tests/laws/test_models.py found.

python -m pytest tests/laws/test_models.py --junitxml=build/models.xml
python scripts/make_models.py build/models.xml        # both: make docs
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from recbole_freqd.config.models import general_models
from recbole_freqd.features import ADAPTERS
from recbole_freqd.features.warm import PROPAGATED, TABLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
HEAD = (
    "model",
    "as teacher",
    "energy kept",
    "as student: features",
    "capacity keys",
    "warm start",
    "RecBole's trainer",
    "notes",
)


def findings(report: Path) -> dict[str, dict[str, str]]:
    """What was recorded for every model, over all its tests.

    Raises:
        SystemExit: A test of the report failed, or none recorded a model.
    """
    root = ElementTree.parse(report).getroot()
    cases = list(root.iter("testcase"))
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None]
    if failed:
        raise SystemExit(f"{report}: these tests failed, so no table: {', '.join(failed)}")
    found: dict[str, dict[str, str]] = {}
    for case in cases:
        properties = {item.get("name"): item.get("value") for item in case.iter("property")}
        if "model" in properties:
            found.setdefault(properties["model"], {}).update(properties)
    missing = sorted(set(general_models()) - set(found))
    if missing:
        raise SystemExit(f"{report}: nothing was recorded of {', '.join(missing)} (faiss missing?)")
    return found


def warm_start(name: str) -> str:
    """Whether a student can start warm, or why not; a model that is no student says nothing."""
    adapter = ADAPTERS.get(name)
    if adapter.student is None or adapter.closed_form:
        return ""
    ways = {TABLES: "yes", PROPAGATED: "yes, by conjugate gradients"}
    return ways.get(adapter.warm, f"no: {adapter.warm}")


def row(name: str, found: dict[str, str]) -> str:
    spectral = found["teacher"] == "spectral"
    kept = f"{float(found['kept']):.1%}" if spectral else ""
    keys = ", ".join(f"`{key}`" for key in filter(None, found.get("capacity", "").split(", ")))
    student = found.get("student") or "no (closed form)"
    cells = (name, found["teacher"], kept, student, keys, warm_start(name))
    return f"| {' | '.join((*cells, found.get('trainer', ''), found['note']))} |"


def main(report: str) -> None:
    found = findings(Path(report))
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    lines += [row(name, found[name]) for name in sorted(found, key=str.lower)]
    table = "<!-- table -->\n" + "\n".join(lines) + "\n<!-- /table -->"
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(r"<!-- table -->.*<!-- /table -->", lambda _: table, text, flags=re.DOTALL),
        encoding="utf-8",
    )
    print(f"{PAGE}: {len(found)} models")


if __name__ == "__main__":
    main(*sys.argv[1:])
