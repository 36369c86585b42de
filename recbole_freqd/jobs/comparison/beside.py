"""What a comparison has beside its methods: baselines, the teachers of a team, rows of a file."""

from typing import Any, Callable

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.files import read_yaml
from recbole_freqd.jobs.fairness import EQUAL_FOR_ALL
from recbole_freqd.jobs.lineup import why_not_warm
from recbole_freqd.jobs.tuning.space import ALONE, WARM

TEACHER, INT8, MEMBER = "teacher", "teacher_int8", "member "
CUT = "cut"
NAMES = {
    INT8: "teacher in int8",
    ALONE: "student alone",
    CUT: "teacher cut to size",
    WARM: "student alone, warm",
}
_ROLES = {TEACHER: "teacher", INT8: INT8, ALONE: "student_alone", CUT: CUT, WARM: "student_warm"}
_SAME_FOR_ALL = (EQUAL_FOR_ALL | {"resume"}) - {"trainer", "teacher"}
Records = dict[str, list[dict[str, Any]]]


def role_of(what: str) -> str:
    """The role of a row, as in a ``results.json`` of the main job; a team's is ``teacher`` here."""
    return "member" if what.startswith(MEMBER) else _ROLES.get(what, "distilled")


def is_student(what: str) -> bool:
    """Whether it is one of the students, which are ranked."""
    return role_of(what) not in ("teacher", "member", "teacher_int8")


def baselines(model_class: type, say: Callable[[str], None]) -> list[str]:
    """The students that every comparison has; what cannot be is left out, and it is said why."""
    why = why_not_warm(model_class)
    if why is None:
        return [ALONE, CUT, WARM]
    left_out = join_names(NAMES[what] for what in (CUT, WARM))
    say(f"Left out: {left_out}. {model_class.__name__} cannot start warm: {why}.")
    return [ALONE]


def read_rows(file: str) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Rows of a file: names, each with a trainer and with keys that lie over the comparison's.

    Args:
        file: YAML, such as ``RCE-KD by a team: {trainer: RCE-KD, teacher: [...]}``.

    Returns:
        Losses and keys by name.

    Raises:
        ConfigError: No such file; a row without a trainer; a name or key that is taken.
    """
    methods: dict[str, list[str]] = {}
    keys: dict[str, dict[str, Any]] = {}
    for name, row in read_yaml(file, "--rows").items():
        losses = trainer_names(row.get("trainer")) if isinstance(row, dict) else []
        if not losses:
            raise ConfigError(
                f"--rows {file}: got {short_repr(row)} for {name}; allowed: keys with a trainer "
                "among them."
            )
        if role_of(str(name)) != "distilled":
            raise ConfigError(f"--rows {file}: {name} is the name of another row. Change it.")
        taken = sorted(_SAME_FOR_ALL & set(row))
        if taken:
            raise ConfigError(
                f"--rows {file}: {name} sets {taken[0]}, which is the same for all that is "
                "compared. Leave it out."
            )
        methods[str(name)] = losses
        keys[str(name)] = {key: value for key, value in row.items() if key != "trainer"}
    return methods, keys


def with_rows_beside(records: Records) -> Records:
    """The records with rows of what was evaluated in the teachers' runs: members, and int8.

    A row is there where it is there for every seed.
    """
    beside: Records = {}
    for record in records.get(TEACHER, []):
        counts: dict[str, int] = {}
        for row in record.get("beside", ()):
            name = INT8 if row["role"] == INT8 else f"{MEMBER}{row['model']}"
            counts[name] = counts.get(name, 0) + 1
            name += f" {counts[name]}" if counts[name] > 1 else ""
            own: dict[str, Any] = {
                key: record[key] for key in ("seed", "made_with") if key in record
            }
            beside.setdefault(name, []).append({**row, **own, "what": name})
    whole = {what: rows for what, rows in beside.items() if len(rows) == len(records[TEACHER])}
    members = sorted(what for what in whole if what != INT8)
    order = [TEACHER, *members, *([INT8] if INT8 in whole else [])]
    return {
        **{what: {**records, **whole}[what] for what in order if what in {**records, **whole}},
        **{what: rows for what, rows in records.items() if what != TEACHER},
    }
