"""Rows of a ``results.json``: students, teachers as they are, teams, and a teacher in int8."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Optional, Union

import torch

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.core.quantise import Int8Rows, int8_ranker
from recbole_freqd.core.rows import Features
from recbole_freqd.features.data import training_matrix
from recbole_freqd.jobs.measure import (
    bytes_per_entity,
    parameter_count,
    ranking_latencies,
    size_mb,
)
from recbole_freqd.jobs.run import Run, evaluate_model
from recbole_freqd.jobs.tested import Tested
from recbole_freqd.teacher.base import MemberTeacher, Teacher, own_model
from recbole_freqd.teacher.taught import RankedBy, Taught
from recbole_freqd.teacher.teach import team_member
from recbole_freqd.teacher.team.team import TeamRanker, team_features

ROLES = (
    *("teacher", "team", "member", "teacher_int8", "cut"),
    *("student_alone", "student_warm", "distilled"),
)
"""In the order of a table."""

Loaders = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Row:
    """A row, and the model that it describes.

    Attributes:
        values: As in ``results.json``; :func:`finished` adds the latency. A team also has
            ``weights``: each member's weight by its name.
        model: What ranks.
    """

    values: dict[str, Any]
    model: Any


def finished(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows in table order, with latencies; the models take turns."""
    ordered = sorted(rows, key=lambda row: ROLES.index(row.values["role"]))
    latencies = ranking_latencies([row.model for row in ordered])
    return [
        {**row.values, "latency_ms_per_1k_users": latency}
        for row, latency in zip(ordered, latencies)
    ]


def student_row(role: str, label: str, run: Run) -> Row:
    """The row of a run's student."""
    values = row_of(
        role, label, run.config, run.model, run.data,
        valid=run.best_valid_result, tested=run.tested, checkpoint=run.trainer.saved_model_file,
        seconds=(run.seconds_per_epoch, run.seconds_all_in),
    )  # fmt: skip
    return Row(values, run.model)


def teacher_rows(data: Loaders, teacher: Teacher, known: Collection[str] = ()) -> list[Row]:
    """Rows of the unfiltered teacher, or of the team and its members.

    Args:
        data: The student's loaders. teacher: Its teacher, or team.
        known: Checkpoints of members that have a row already.
    """
    if len(teacher.members) == 1:
        only = teacher.members[0].teacher
        return [_as_it_is("teacher", "teacher", data, only)]
    members = [
        _as_it_is("member", _member_label(member), data, member.teacher)
        for member in teacher.members
        if member.teacher.checkpoint not in known
    ]
    whole = _as_it_is("team", "team", data, teacher)
    weights = {member.name: member.weight for member in teacher.members}
    return [Row({**whole.values, "weights": weights}, whole.model), *members]


def int8_row(data: Loaders, teacher: Teacher) -> Union[Row, str]:
    """A row of the teacher's final features in int8, ranked as stored; or why there are none.

    Args:
        data: The student's loaders. teacher: Its teacher, or team.
    """
    start, dataset = perf_counter(), data[0]._dataset
    found = _final_features(teacher, dataset)
    if isinstance(found, str):
        return found
    features, exact = found
    model = RankedBy(int8_ranker(*features, exact), teacher.config)
    for name, kept in _stored(features, exact).items():
        model.register_buffer(name, kept)
    seconds = perf_counter() - start
    valid, tested = evaluate_model(data, teacher, model, 1, 2)
    values = row_of(
        "teacher_int8", "teacher in int8", teacher.config, model, data,
        valid=valid.metrics, tested=tested, checkpoint=teacher.checkpoint,
        seconds=(None, seconds),
    )  # fmt: skip
    return Row(values, model)


def row_of(
    role: str,
    label: str,
    config: Any,
    model: Any,
    data: Loaders,
    *,
    valid: dict[str, float],
    tested: Optional[Tested],
    checkpoint: str,
    seconds: tuple[Optional[float], Optional[float]],
) -> dict[str, Any]:
    """A row without its latency.

    Args:
        role: One of :data:`ROLES`. label: Its name in the table.
        config: Of the model. model: What ranks. data: The student's loaders.
        valid, tested: Its metrics; ``tested`` is None if test was not opened.
        checkpoint: Its file.
        seconds: Per epoch, and all in.
    """
    names = trainer_names(config["trainer"])
    return {
        "role": role,
        "label": label,
        "trainer": "+".join(names) or None,
        "model": config["model"],
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        "bytes_per_entity": bytes_per_entity(model, training_matrix(data[0]._dataset).nnz),
        "valid": valid,
        "test": tested and tested.metrics,
        "coverage": tested and tested.coverage,
        "gini": tested and tested.gini,
        "latency_ms_per_1k_users": None,
        "seconds_per_epoch": seconds[0],
        "seconds_all_in": seconds[1],
        "checkpoint": checkpoint,
    }


def _as_it_is(role: str, label: str, data: Loaders, teacher: Teacher) -> Row:
    model = teacher.model(data[0]._dataset)
    valid, tested = evaluate_model(data, teacher, model, 1, 2)
    seconds = teacher.facts.get("seconds_per_epoch"), teacher.facts.get("seconds_all_in")
    values = row_of(
        role, label, teacher.config, own_model(model), data,
        valid=valid.metrics, tested=tested, checkpoint=teacher.checkpoint, seconds=seconds,
    )  # fmt: skip
    return Row(values, own_model(model))


def _member_label(member: MemberTeacher) -> str:
    return f"{member.name}, weight {member.weight:.2g}"


def _final_features(teacher: Teacher, dataset: Any) -> Union[tuple[Features, int], str]:
    """Features that rank by dot products, and how many columns are biases; or why none do."""
    present = [member for member in teacher.members if member.weight > 0]
    if len(present) > 1:
        plain = teacher.plain if isinstance(teacher, Taught) else None
        if isinstance(plain, TeamRanker) and plain.is_product and teacher.known is None:
            return team_features(plain.members, plain.weights, factor=plain.factor), 0
        return "the team's scores are not products of features for everything it knows"
    only = present[0].teacher
    member = team_member("teacher", only, dataset)
    if not member.is_product or member.features is None:
        return f"the scores of {only.config['model']} are not products of features"
    return member.features, member.features[0].shape[1] - only.features[0].shape[1]


def _stored(features: Sequence[torch.Tensor], exact: int) -> dict[str, torch.Tensor]:
    """Bytes to keep: whole numbers, scales and biases, but not the columns of ones beside them."""
    kept: dict[str, torch.Tensor] = {}
    for side, rows in zip(("user", "item"), features):
        cut = rows.shape[1] - exact
        stored = Int8Rows.of(rows[:, :cut])
        kept |= {f"{side}_values": stored.values, f"{side}_scales": stored.scales}
        biases = rows[:, cut:]
        kept[f"{side}_biases"] = biases[:, (biases[1:] != 1).any(dim=0)]
    return kept
