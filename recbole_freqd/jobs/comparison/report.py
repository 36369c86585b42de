"""Makes the table of a comparison and says it in words; trains nothing and draws nothing."""

from collections.abc import Collection, Sequence
from typing import Any, Optional

import numpy as np
import yaml

from recbole_freqd.config.identity import WHERE_IT_RUNS
from recbole_freqd.config.names import WEIGHT_AVERAGE, teaching_keys
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.comparison.beside import NAMES, WARM, is_student, numbered, role_of
from recbole_freqd.jobs.comparison.significance import PerUser, holm, paired_test, user_differences
from recbole_freqd.jobs.fairness import EQUAL_FOR_ALL, other_caps
from recbole_freqd.jobs.tables import as_table, describe_weights, gap_closed

LEVEL = 0.05
_COLUMNS = ("bytes_per_entity", "coverage", "gini", "seconds_all_in")
_SHOWN = (
    "epochs",
    "eval_step",
    "stopping_step",
    "valid_metric",
    "eval_args",
    "train_batch_size",
    "learner",
    "learning_rate",
    "weight_decay",
    "embedding_size",
)


def summarise(
    rows: dict[str, list[dict[str, Any]]],
    users: dict[str, list[Optional[PerUser]]],
    reference: str,
    metric: str,
    failed: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Makes one row for the teacher, the student alone and each method, over all seeds.

    Args:
        rows: The records of each run, by ``teacher``, ``alone`` and method, in the order of the
            seeds: ``valid``, ``test``, ``epochs``, ``seconds_per_epoch``, ``parameters``.
        users: The metric of every user of those runs, or None if it is missing.
        reference: The method that all others are compared with.
        metric: The metric that ranks and tests.
        failed: The rows with a failed run. Means over fewer seeds are not comparable, so these rows
            have no rank, gap or test.

    Returns:
        ``what``, means and standard deviations of ``valid`` and ``test``; ``rank`` among the
        students by the mean of the test metric; ``share`` of the teacher's, and ``gap_closed``, of
        the means; ``bytes_per_entity``, ``coverage``, ``gini`` and ``seconds_all_in``, means;
        ``weights``, the mean weight of each member of a team; ``failed``, whether a run is missing;
        ``against`` the reference: see :func:`.significance.paired_test`, with ``p_holm`` over all
        other students and ``wins``, the seeds in which the mean is above the reference's. Ranks,
        gaps and wins use exact means over users, not RecBole's rounded ones.
    """
    table = [{**_row(what, found), "failed": what in failed} for what, found in rows.items()]
    exact = {what: _exact(rows[what], users[what], metric) for what in rows if what not in failed}
    means = {what: float(np.mean(values)) for what, values in exact.items() if values}
    students = [what for what in means if is_student(what)]
    for row in table:
        what = row["what"]
        if what in students:
            row["rank"] = 1 + sum(means[other] > means[what] for other in students)
        if what in means and means.get("teacher"):
            row["share"] = means[what] / means["teacher"]
        if what in students and what != "alone" and {"teacher", "alone"} <= set(means):
            row["gap_closed"] = gap_closed(means["teacher"], means["alone"], means[what])
    known = {
        what: [one for one in users[what] if one is not None]
        for what in students
        if all(one is not None for one in users[what])
    }
    tested = {
        what: paired_test(user_differences(known[what], known[reference]))
        for what in known
        if what != reference and reference in known
    }
    corrected = holm({what: test["p"] for what, test in tested.items() if test["p"] is not None})
    for row in table:
        if row["what"] in tested:
            pairs = zip(exact[row["what"]], exact[reference])
            row["against"] = {
                **tested[row["what"]],
                "p_holm": corrected.get(row["what"]),
                "wins": sum(ours > its for ours, its in pairs),
            }
    return table


def _exact(rows: list[dict[str, Any]], users: list[Optional[PerUser]], metric: str) -> list[float]:
    """The test metric of every run: the mean over its users if known, or nothing."""
    return [
        row["test"][metric] if one is None else float(np.mean(one[1], dtype=np.float64))
        for row, one in zip(rows, users)
        if metric in row["test"]
    ]


def _row(what: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [row["seconds_per_epoch"] for row in found if row["seconds_per_epoch"] is not None]
    epochs = [row["epochs"] for row in found if row["epochs"] is not None]
    return {
        "what": what,
        "role": role_of(what),
        "model": found[0]["model"] if found else None,
        "parameters": found[0]["parameters"] if found else None,
        "seeds": len(found),
        "valid": _spreads([row["valid"] for row in found]),
        "test": _spreads([row["test"] for row in found]),
        "rank": None,
        "share": None,
        "gap_closed": None,
        "against": None,
        "weights": _mean_weights([row.get("weights") for row in found]),
        "epochs": float(np.mean(epochs)) if epochs else None,
        "seconds_per_epoch": float(np.median(seconds)) if seconds else None,
        **{name: _mean([row.get(name) for row in found]) for name in _COLUMNS},
    }


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    """The mean over the seeds; None if one of them has no value."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if values and len(known) == len(values) else None


def _spreads(results: Sequence[dict[str, float]]) -> dict[str, dict[str, Optional[float]]]:
    """Mean and sample standard deviation of the metrics that all results have."""
    first = results[0] if results else {}
    shared = [name for name in first if all(name in result for result in results)]
    return {
        name: {
            "mean": float(np.mean([result[name] for result in results])),
            "sd": float(np.std([result[name] for result in results], ddof=1))
            if len(results) > 1
            else None,
        }
        for name in shared
    }


def split_common(
    configs: dict[str, dict[str, Any]], equal: frozenset[str] = EQUAL_FOR_ALL
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits keys into shared ones and the rest by student; drops those of where it ran.

    Args:
        configs: The keys of each, by student.
        equal: Keys that have to be the same for all.

    Raises:
        ConfigError: A key of ``equal`` differs.
    """
    apart_from = WHERE_IT_RUNS | {"seed"}
    students = {
        # Without a trainer and without the key a student is not averaged.
        what: {
            WEIGHT_AVERAGE: 0.0,
            **{key: value for key, value in config.items() if key not in apart_from},
        }
        for what, config in configs.items()
        if what != "teacher"
    }
    missing = object()
    common = {
        key: value
        for key, value in students["alone"].items()
        if all(config.get(key, missing) == value for config in students.values())
    }
    # A key of the teacher is shared if all students with a teacher have the same value.
    taught = [config for what, config in students.items() if what != "alone"]
    common.update(
        (key, config[key])
        for config in taught[:1]
        for key in teaching_keys()
        if all(other.get(key, missing) == config.get(key) for other in taught)
    )
    unequal = sorted((equal - {"trainer", "teacher"}) & set(students["alone"]) - set(common))
    if unequal:
        raise ConfigError(f"{', '.join(unequal)}: has to be the same for all rows, but differs.")
    shared = taught[0]["teacher"] if taught else None
    return common, {
        what: {
            key: value
            for key, value in config.items()
            if key not in common and (key, value) != ("teacher", shared)
        }
        for what, config in students.items()
    }


def table_lines(results: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, head first.

    Args:
        results: See :func:`recbole_freqd.compare`.
    """
    metric, reference = results["metric"], results["reference"]
    shown = [
        name
        for name in max((row["test"] for row in results["table"]), key=len)
        if name.startswith(("recall@", "ndcg@")) or name == metric
    ]
    head = ["", "model", f"valid {metric}", *(f"test {name}" for name in shown), "rank"]
    head += ["share", "gap closed", f"Δ to {reference}", "seeds won", "p (Holm)"]
    head += ["B/entity", "coverage", "gini", "epochs", "s / epoch", "s all in"]
    lines = [head]
    for row in results["table"]:
        against = row["against"] or {}
        rank = "failed" if row["failed"] else _word(row["rank"], "d")
        lines.append(
            [_row_name(row), row["model"] or "", _spread(row["valid"].get(metric))]
            + [_spread(row["test"].get(name)) for name in shown]
            + [rank, _word(row["share"], ".0%"), _word(row["gap_closed"], ".0%")]
            + [_word(against.get("difference"), "+.4f")]
            + [f"{against['wins']} of {row['seeds']}" if against else ""]
            + [_p_value(against.get("p_holm"))]
            + [_word(row["bytes_per_entity"], ".0f")]
            + [_word(row[name], ".2f") for name in ("coverage", "gini")]
            + [_word(row["epochs"], ".0f"), _word(row["seconds_per_epoch"], ".2f")]
            + [_word(row["seconds_all_in"], ".0f")]
        )
    return lines


def describe_outcome(results: dict[str, Any]) -> str:
    """Says who is first, and what the reference beats, loses to, or is not told apart from."""
    metric, reference = results["metric"], results["reference"]
    by_name = {row["what"]: row for row in results["table"]}
    students = [row for row in results["table"] if row["rank"] is not None]
    firsts = [_name(row["what"]) for row in students if row["rank"] == 1]
    sentences = [f"First by mean test {metric}: {' and '.join(firsts)}."] if firsts else []
    if by_name[reference]["rank"] is not None:
        sentences.append(f"{reference} is number {by_name[reference]['rank']} of {len(students)}.")
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for row in students:
        p = (row["against"] or {}).get("p_holm")
        if p is not None and p < LEVEL:
            better = row["against"]["difference"] < 0
            groups["better than" if better else "worse than"].append(_name(row["what"]))
        elif p is not None:
            groups["not told apart from"].append(_name(row["what"]))
    told = [f"{words} {', '.join(names)}" for words, names in groups.items() if names]
    if told:
        sentences.append(
            f"At {LEVEL} (paired t-test over users, Holm-corrected) {reference} is "
            f"{'; '.join(told)}."
        )
    ends = [by_name[what]["test"].get(metric) for what in ("teacher", "alone")]
    whole = not any(by_name[what]["failed"] for what in ("teacher", "alone"))
    if whole and None not in ends and ends[0]["mean"] <= ends[1]["mean"]:
        sentences.append("There is no gap to close: the teacher does not beat the student alone.")
    sentences += [
        describe_weights(row["weights"], _row_name(row))
        for row in results["table"]
        if row["weights"]
    ]
    sentences += [f"Left out: {what}, since {why}." for what, why in results["left_out"].items()]
    sentences += [
        f"{_name(one['what'])}, seed {one['seed']}, failed: {one['error']}"
        for one in results["failed"]
    ]
    return " ".join(sentences)


def markdown(results: dict[str, Any]) -> str:
    """The whole report: table, words, conditions, configs."""
    seeds = ", ".join(map(str, results["seeds"]))
    common, metric = results["common"], results["metric"]
    conditions = {key: common[key] for key in _SHOWN if common.get(key) is not None}
    return "\n".join(
        [
            f"# {results['dataset']}: {results['teacher_model']} → {results['model']}",
            "",
            as_table(table_lines(results)),
            "",
            describe_outcome(results),
            "",
            f"Mean ± standard deviation over seeds {seeds}. Within a seed every method has the "
            f"same teacher. Δ is the difference in test {metric}, averaged over seeds, then over "
            "users. Seeds won have a higher mean than the reference. p comes from the paired "
            "t-test over users, with Holm's correction over all rows that have one. Its sample "
            "are users, not seeds: read it beside the spread over seeds. The gap closed is "
            "(method − alone) / (teacher − alone), and the share method / teacher; both use the "
            "means. B are the bytes needed to rank. Coverage and gini are ItemCoverage@10 and "
            "GiniIndex@10 of the test lists. s all in counts the seconds from reading the data to "
            "the end of training, without the teacher's own. The teacher cut to size is the best "
            "approximation of its unfiltered scores by features of the student's width. The "
            "student alone, warm, begins "
            f"there; {_of_the_baselines(results)}",
            "",
            f"Tuning: {_budget(results['tuning'] or {}, common)}.",
            "",
            "The same for every student:",
            "",
            _yaml(conditions),
            "",
            "and what differs:",
            "",
            _yaml({"teacher": results["teacher"], **results["configs"]}),
            "",
            f"Commit {', '.join(map(str, results['commits']))}; recbole_freqd "
            f"{results['version']}. All runs are in `{results['cells_folder']}`.",
            "",
        ]
    )


def _of_the_baselines(results: dict[str, Any]) -> str:
    """Says which keys the baselines use."""
    if WARM in results["configs"]:
        return "the cut uses the keys of the student alone."
    return "both use the keys of the student alone."


def _budget(tuning: dict[str, Any], common: dict[str, Any]) -> str:
    """Says how the configs were chosen; configs written by hand do not say."""
    if not {"trials", "seeds", "tuned"} <= set(tuning):
        return "none; every method is configured as below, all else as in properties/"
    caps = other_caps(tuning, {**common, "metric": str(common.get("valid_metric")).lower()})
    return (
        f"{tuning['trials']} trials (Latin hypercube sampling){caps and f' with {caps}'} on the "
        f"validation split of seeds {', '.join(map(str, tuning['seeds']))} for each of "
        f"{', '.join(tuning['tuned'])}"
    )


def _yaml(values: dict[str, Any]) -> str:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"```yaml\n{text}```"


def _name(what: str) -> str:
    return NAMES.get(what, what)


def _row_name(row: dict[str, Any]) -> str:
    """The name of a row in the table, which calls a team a team."""
    is_team = (row["role"], row["model"]) == ("teacher", "Team")
    return row["what"].replace("teacher", "team", 1) if is_team else _name(row["what"])


def _mean_weights(found: list[Optional[dict[str, float]]]) -> Optional[dict[str, float]]:
    """Means over seeds, by model: a seed's names may contain its own hashes."""
    every = [
        dict(zip(numbered(name.partition(" ")[0] for name in weights), weights.values()))
        for weights in found
        if weights is not None
    ]
    shared = [name for name in every[0] if all(name in each for each in every)] if every else []
    return {name: float(np.mean([each[name] for each in every])) for name in shared} or None


def _spread(value: Optional[dict[str, Optional[float]]]) -> str:
    if value is None:
        return ""
    return f"{value['mean']:.4f}" + ("" if value["sd"] is None else f" ± {value['sd']:.4f}")


def _p_value(value: Optional[float]) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _word(value: Optional[float], form: str) -> str:
    return "" if value is None else format(value, form)
