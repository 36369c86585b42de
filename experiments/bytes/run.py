"""Bytes of a user or an item against quality: a teacher, its cut and its student, as they are kept.

    python experiments/bytes/run.py --out results/bytes [--seeds 2020,2021,2022] [--saved DIR]

BPR 64 teaches BPR 8 on ml-100k. All three are exported (``export --precision``), and with faiss
also kept as SQ8 (a byte a number) and PQ (a byte for several numbers; codebooks of users and of
items are trained on their own vectors). What is kept is read back as a teacher's ``vectors`` and
evaluated by RecBole. Finished seeds are kept in ``runs.jsonl``; the table is ``<out>.md``, the
picture ``<out>.png``. RecBole writes log/ into the working directory: run it from a scratch folder.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import recbole_freqd
from recbole_freqd.core.files import read_yaml, write_atomically
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.tables import as_table, format_spread

METRIC = "ndcg@10"
# Keys that validation has chosen, from the one place that has them.
ROWS = read_yaml(str(Path(__file__).resolve().parents[1] / "rows" / "ml-100k.yaml"), "file")
KEYS = {key: value for key, value in ROWS["common"].items() if key != "teacher"}
FREQRANK = {**ROWS["rows"]["FreqRank"], "teacher": ROWS["common"]["teacher"]}
ALONE = ROWS["rows"]["alone"]
CODES = {64: ("SQ8", "PQ32", "PQ16", "PQ8", "PQ4"), 8: ("SQ8", "PQ4", "PQ2")}
_COLOURS = {"teacher": "#7F7F7F", "cut": "#000000", "alone": "#56B4E9", "student": "#D55E00"}
_MARKERS = {"teacher": "s", "cut": "^", "alone": "v", "student": "o"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", default="2020,2021,2022")
    parser.add_argument("--saved", default="saved", help="folder of checkpoints (default: saved)")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    recbole_freqd.register()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in map(int, options.seeds.split(",")):
        if not any(row["seed"] == seed for row in rows):
            found = [{"seed": seed, **row} for row in measured(seed, options.saved)]
            rows += found
            with open(file, "a") as stream:
                stream.writelines(f"{json.dumps(row)}\n" for row in found)
    kinds = grouped(rows)
    text = report(kinds)
    options.out.with_suffix(".md").write_text(text)
    draw(kinds, options.out.with_suffix(".png"))
    print(text)


def measured(seed: int, saved: str) -> Iterator[dict[str, Any]]:
    """A row for each of the models and each way to keep it."""
    from recbole_freqd.config.make import config_with, make_config
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs.lineup import WARM, WARM_KEYS

    common = {**KEYS, "seed": seed, "checkpoint_dir": saved}
    config = make_config(None, None, None, {**common, **FREQRANK})
    student = runs.run(config, test=False)
    cut = runs.run(config_with(config, [WARM], **WARM_KEYS), test=False, untrained=True)
    alone = runs.run(make_config(None, None, None, {**common, **ALONE}), test=False)
    checkpoints = {
        "teacher": student.trainer.teacher.checkpoint,
        "cut": cut.trainer.saved_model_file,
        "alone": alone.trainer.saved_model_file,
        "student": student.trainer.saved_model_file,
    }
    for name, checkpoint in checkpoints.items():
        for kept_as, folder, each, beside in kept(f"{name}-{seed}", checkpoint):
            valid, test = evaluated(student, {**common, **FREQRANK}, folder)
            row = {"model": name, "kept_as": kept_as, "bytes": each, "beside": beside}
            print_line(f"{seed} {row} {valid[METRIC]} {test[METRIC]}")
            yield {**row, "valid": valid[METRIC], "test": test[METRIC]}


def kept(stem: str, checkpoint: str) -> Iterator[tuple[str, Path, float, int]]:
    """Ways to keep a checkpoint: name, folder of vectors, bytes an entity, bytes beside."""
    for precision in ("float32", "float16", "int8"):
        folder = Path("vectors") / f"{stem}-{precision}"
        recbole_freqd.export(checkpoint, folder, precision=precision, overwrite=True)
        sides = [np.load(folder / f"{side}.npz") for side in ("users", "items")]
        arrays = [side[name] for side in sides for name in side.files if name != "tokens"]
        entities = sum(len(side["tokens"]) for side in sides)
        yield precision, folder, sum(array.nbytes for array in arrays) / entities, 0
    if importlib.util.find_spec("faiss"):
        whole = Path("vectors") / f"{stem}-float32"
        for code in CODES[np.load(whole / "items.npz")["vectors"].shape[1]]:
            yield code, *coded(whole, code)


def coded(whole: Path, code: str) -> tuple[Path, float, int]:
    """Writes what is left of the vectors of an export in a code of faiss's."""
    import faiss

    folder, beside, each = whole.with_name(f"{whole.name}-{code}"), 0, 0
    folder.mkdir(exist_ok=True)
    for side in ("users", "items"):
        file = np.load(whole / f"{side}.npz")
        rows = file["vectors"]
        factory = code if code == "SQ8" else f"{code}x8np"  # not polysemous: slow, no other codes
        index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(rows)
        index.add(rows)
        each = index.sa_code_size()
        beside += faiss.serialize_index(index).nbytes - each * len(rows)
        vectors = index.reconstruct_n(0, len(rows))
        np.savez(folder / f"{side}.npz", tokens=file["tokens"], vectors=vectors)
    return folder, float(each), beside


def evaluated(run: Any, keys: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Validation and test metrics of the vectors in a folder, on the splits of a run."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.run import evaluate_on
    from recbole_freqd.teacher import find_teacher

    config = make_config(None, None, None, {**keys, "teacher": {"vectors": str(folder)}})
    return evaluate_on(run.data, find_teacher(config, *run.data[:2]), 1, 2)[1]


Kinds = dict[tuple[str, str], list[dict[str, Any]]]


def grouped(rows: list[dict[str, Any]]) -> Kinds:
    """Rows of all seeds by model and what it is kept as, in the order of the first seed."""
    kinds: Kinds = {}
    for row in rows:
        kinds.setdefault((row["model"], row["kept_as"]), []).append(row)
    return kinds


def report(kinds: Kinds) -> str:
    """The table."""
    whole = _mean(kinds["teacher", "float32"])
    lines = [
        ["vectors", "kept as", "bytes / entity", "KB beside", "valid", f"test {METRIC}", "kept"]
    ]
    for (model, kept_as), rows in kinds.items():
        tests = [row["test"] for row in rows]
        valid = mean(row["valid"] for row in rows)
        size = f"{rows[0]['bytes']:.0f}", f"{rows[0]['beside'] / 1000:.1f}"
        quality = f"{valid:.4f}", format_spread(tests), f"{mean(tests) / whole:.1%}"
        lines.append([_label(model), kept_as, *size, *quality])
    seeds = ", ".join(sorted({str(row["seed"]) for rows in kinds.values() for row in rows}))
    return f"""# Bytes against quality

BPR of 64 dimensions teaches BPR of 8 on ml-100k (943 users, 1,682 items); mean ± sd over the seeds
{seeds}, which are splits, too. *cut*: the teacher's best approximation of 8 dimensions, untrained.
*alone*: BPR 8 without a teacher. *student*: BPR 8 by FreqRank. float32, float16, int8: `export
--precision`. SQ8, PQ: codes of faiss, for users and items each; PQ16 keeps 16 bytes of a vector.
*KB beside*: what does not grow with the users and items, above all codebooks; on data as small as
these they outweigh the codes, and have nearly as many entries as there are vectors, which flatters
PQ. *kept*: share of the teacher's test {METRIC} in float32.

![bytes of an entity against test {METRIC}](bytes.png)

{as_table(lines, left=2)}

`experiments/bytes/run.py` makes it; all figures are in `bytes/runs.jsonl`.
"""


def draw(kinds: Kinds, file: Path) -> None:
    """The picture: a line for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for model, colour in _COLOURS.items():
        points = sorted(
            (rows[0]["bytes"], _mean(rows), kept_as)
            for (name, kept_as), rows in kinds.items()
            if name == model
        )
        sizes, values, _ = zip(*points)
        axes.plot(sizes, values, _MARKERS[model] + "-", color=colour, lw=1, label=_label(model))
        for size, value, name in points if model in ("teacher", "student") else ():
            place = (-6, -12) if name == "SQ8" else (3, 6)  # it lies beside int8
            axes.annotate(name, (size, value), place, textcoords="offset points", fontsize=7)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("bytes of a user or an item, without codebooks")
    axes.set_ylabel(f"test {METRIC}")
    axes.margins(0.08, 0.1)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    write_atomically(file, lambda name: figure.savefig(name, format="png", dpi=140))


def _label(model: str) -> str:
    return f"{model}, {64 if model == 'teacher' else 8}"


def _mean(rows: list[dict[str, Any]]) -> float:
    return mean(row["test"] for row in rows)


if __name__ == "__main__":
    main()
