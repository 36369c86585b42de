"""Takes finished runs into ``results/rows/<dataset>/runs.jsonl``: all that a table needs.

python experiments/rows/collect.py FOLDER/cells --out results/rows/ml-100k
"""

import argparse
import json
from pathlib import Path

_KEPT = (
    "row", "seed", "keys", "valid", "test", "best_epoch", "epochs", "seconds_per_epoch",
    "seconds_to_best", "parameters", "size_mb", "teaching", "teacher_valid", "teacher_test",
    "members",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in sorted(options.cells.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["test"]:
            kept = {key: run.get(key) for key in _KEPT}
            lines.append(json.dumps({**kept, "commit": run["made_with"]["commit"]}))
    text = "".join(f"{line}\n" for line in lines)
    (options.out / "runs.jsonl").write_text(text, encoding="utf-8", newline="\n")
    print(f"{options.out / 'runs.jsonl'}: {len(lines)} runs")


if __name__ == "__main__":
    main()
