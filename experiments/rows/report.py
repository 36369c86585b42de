"""Tables of finished rows: ``<out>/runs.jsonl``, all that a table needs, and ``<out>/table.md``.

    python experiments/rows/report.py results/rows/ml-100k [--cells FOLDER]

Computes nothing that is not in the runs. A row enters the table when it has every seed.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recbole_freqd.jobs.tables import as_table

METRIC = "ndcg@10"
_KEPT = (
    "row", "seed", "keys", "valid", "test", "best_epoch", "epochs", "seconds_per_epoch",
    "seconds_to_best", "parameters", "size_mb", "teaching", "teacher_valid", "teacher_test",
    "members",
)  # fmt: skip
_TEAM = "FreqRank by the team"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=Path, help="folder of finished runs to take in first")
    options = parser.parse_args()
    file = options.out / "runs.jsonl"
    if options.cells:
        options.out.mkdir(parents=True, exist_ok=True)
        runs = [kept(json.loads(path.read_text())) for path in sorted(options.cells.glob("*.json"))]
        file.write_text("".join(f"{json.dumps(run)}\n" for run in runs if run["test"]))
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    text = report(runs)
    (options.out / "table.md").write_text(text)
    print(text)


def kept(run: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run's file, and the commit that it was made with."""
    return {**{key: run.get(key) for key in _KEPT}, "commit": run["made_with"]["commit"]}


def report(runs: list[dict[str, Any]]) -> str:
    """The table of all rows that have every seed, teachers first."""
    by_row: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_row.setdefault(run["row"], []).append(run)
    seeds = [run["seed"] for run in max(by_row.values(), key=len)]
    rows = {name: found for name, found in by_row.items() if len(found) == len(seeds)}
    taught = teachers_of(rows)
    bases = [("its teacher", "BPR"), ("best member", best_member(taught))]
    head = ["", "bytes / entity", "valid", f"test {METRIC}", "seeds"]
    head += [f"x {label} ({name})" for label, name in bases]
    head += ["coverage", "Gini", "best epoch", "epochs", "at the cap", "s to best"]
    entities = _entities(rows)
    lines = [_line(name, found, taught, bases, entities) for name, found in taught.items()]
    order = sorted(rows, key=lambda name: -_mean(rows[name], "test"))
    lines += [_line(name, rows[name], taught, bases, entities) for name in order]
    dataset = runs[0]["keys"]["dataset"]
    commits = ", ".join(sorted({str(run["commit"]) for run in runs}))
    words = (
        f"Mean and standard deviation over seeds {', '.join(map(str, seeds))}. Seconds are of a "
        "busy machine, one thread a run: compare them with care. Commit "
        f"{commits}. The protocol: [experiments/rows](../../../experiments/rows/README.md)."
    )
    return f"# {dataset}: what each part is worth\n\n{as_table([head, *lines], 1)}\n\n{words}\n"


def teachers_of(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The members of the team, and the team, as rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in rows.get(_TEAM, ()):
        for member in run["members"]:
            made = {"valid": member["valid"], "test": member["test"], "weight": member["weight"]}
            found.setdefault(member["name"], []).append({"seed": run["seed"], **made})
        whole = {"valid": run["teacher_valid"], "test": run["teacher_test"]}
        found.setdefault("the team", []).append({"seed": run["seed"], **whole})
    return found


def best_member(taught: dict[str, list[dict[str, Any]]]) -> str:
    """The single teacher that is best on validation, by the mean over seeds."""
    members = [name for name in taught if name != "the team"]
    return max(members, key=lambda name: _mean(taught[name], "valid"), default="BPR")


def _line(
    name: str,
    found: list[dict[str, Any]],
    taught: dict[str, list[dict[str, Any]]],
    bases: list[tuple[str, str]],
    entities: float,
) -> list[str]:
    tests = [run["test"][METRIC] for run in found]
    shares = [
        f"{mean(tests) / _mean(taught[base], 'test'):.3f}" if base in taught else ""
        for _, base in bases
    ]
    weights = [run["weight"] for run in found if run.get("weight") is not None]
    label = f"{name} (weight {mean(weights):.2f})" if weights else name
    size = found[0].get("size_mb")
    cap = [run["epochs"] == run["keys"]["epochs"] for run in found if run.get("epochs")]
    return [
        label,
        f"{size * 1e6 / entities:.0f}" if size else "",
        f"{_mean(found, 'valid'):.4f}",
        _spread(tests),
        str(len(found)),
        *shares,
        f"{mean(run['test']['itemcoverage@10'] for run in found):.3f}",
        f"{mean(run['test']['giniindex@10'] for run in found):.3f}",
        *(_average(found, key) for key in ("best_epoch", "epochs")),
        f"{sum(cap)}" if cap else "",
        _average(found, "seconds_to_best"),
    ]


def _entities(rows: dict[str, list[dict[str, Any]]]) -> float:
    run = rows["alone"][0]
    return run["parameters"] / run["keys"]["embedding_size"]


def _mean(found: list[dict[str, Any]], split: str) -> float:
    return mean(run[split][METRIC] for run in found)


def _average(found: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in found if run.get(key) is not None]
    return f"{mean(values):.0f}" if values else ""


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
