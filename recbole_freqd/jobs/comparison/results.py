"""Makes a comparison's results, as plain values, and their files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd import __version__
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import merge_teachers, teacher_label
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.files import write_json, write_text
from recbole_freqd.jobs.comparison import report as comparison_report
from recbole_freqd.jobs.comparison.beside import WARM, role_of
from recbole_freqd.jobs.comparison.plot import comparison_plot
from recbole_freqd.jobs.comparison.significance import PerUser
from recbole_freqd.jobs.fairness import equal_for_all
from recbole_freqd.jobs.tables import as_table

_TUNING = ("trials", "seeds", "epochs", "eval_step", "stopping_step", "metric", "tuned", "failed")


def results_of(
    base: Any,
    records: dict[str, list[dict[str, Any]]],
    users: dict[str, list[Optional[PerUser]]],
    configs: dict[str, Any],
    failures: list[dict[str, Any]],
    seeds: Sequence[int],
    metric: str,
    frozen: Optional[dict[str, Any]],
) -> dict[str, Any]:
    """Collects a comparison's results as plain values; see :func:`recbole_freqd.compare`.

    Args:
        base: The Config with the keys of all methods and the teacher.
        records: The records of each run, by ``teacher``, members, ``teacher_int8``, own teachers
            of rows, ``alone``, ``cut``, ``warm`` and method.
        users: The metric of every user of those runs, or None if it is missing.
        configs: A Config of each student.
        failures: What, seed and error of the failed runs.
        seeds: Everything ran once for each.
        metric: The metric that ranks and tests.
        frozen: The chosen keys; ``tuned`` in it says how they were chosen.
    """
    methods = [what for what in records if role_of(what) == "distilled"]
    failed = {failure["what"] for failure in failures}
    whole = [what for what in methods if what not in failed] or methods
    reference = "FreqD" if "FreqD" in whole else whole[0]
    configured = {what: _as_read_again(config) for what, config in configs.items()}
    common, different = comparison_report.split_common(configured, equal_for_all(base.model_class))
    chosen = frozen or {}
    tuned = chosen.get("tuned")
    spec = merge_teachers(base[TEACHER], chosen.get("teacher", {}))
    every = [record for found in records.values() for record in found]
    return {
        "dataset": base["dataset"],
        "model": base["model"],
        "teacher_model": records["teacher"][0]["model"]
        if records["teacher"]
        else teacher_label(spec),
        "version": __version__,
        "metric": metric,
        "reference": reference,
        "methods": methods,
        "seeds": list(seeds),
        "failed": failures,
        "left_out": {
            what: why
            for record in records["teacher"]
            for what, why in record.get("left_out", {}).items()
        },
        "commits": sorted({str(record["made_with"]["commit"]) for record in every}),
        "made_with": every[-1]["made_with"],
        "tuning": tuned and {key: tuned[key] for key in _TUNING if key in tuned},
        "teacher": spec,
        "common": common,
        "configs": {**different, **{what: chosen[what] for what in (WARM,) if what in chosen}},
        "table": comparison_report.summarise(records, users, reference, metric, failed),
        "cells": {
            what: [
                {key: record[key] for key in record if key not in ("config", "identity")}
                for record in found
            ]
            for what, found in records.items()
        },
    }


def write_results(results: dict[str, Any], stem: Path, say: Callable[[str], None]) -> None:
    """Says and writes the results; draws a picture only if matplotlib is installed.

    Raises:
        CheckpointError: They cannot be written. The table is said before.
    """
    say(f"\n{results['dataset']}, seeds {', '.join(map(str, results['seeds']))}")
    table = as_table(comparison_report.table_lines(results))
    say(f"{table}\n\n{comparison_report.describe_outcome(results)}")
    write_json(stem.with_suffix(".json"), results)
    write_text(stem.with_suffix(".md"), comparison_report.markdown(results))
    made = ".json, .md"
    try:
        comparison_plot(results, stem.with_suffix(".png"))
        made += ", .png"
    except ConfigError as error:
        say(str(error))
    say(f"Results: {stem}{made}")


def _as_read_again(config: Any) -> dict[str, Any]:
    """All keys of a Config, as a file gives them back."""
    return json.loads(json.dumps(config.final_config_dict, default=str))
