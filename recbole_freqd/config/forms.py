"""The forms of RecBole's values that are more than a type and a range: intervals, splits, modes."""

import re
from typing import Any, Callable, Optional

from recbole_freqd.core.errors import short_repr
from recbole_freqd.core.schema import is_number, read_keys

_INTERVAL = re.compile(r"^\s*[\[(]([^,\[\]()]+),([^,\[\]()]+)[\])]\s*$")
_GPUS = re.compile(r"^\s*(|-1|\d+(\s*,\s*\d+)*|(GPU|MIG)-\S+)\s*$")
_MODE = re.compile(r"^(full|labeled|(uni|pop)[1-9]\d{0,8})$")


def _topk(value: Any) -> Optional[str]:
    cutoffs = value if isinstance(value, list) else [value]
    if all(1 <= k <= 10**9 for k in cutoffs):
        return None
    return "topk must be a positive integer or a list of positive integers"


def _gpu_id(value: Any) -> Optional[str]:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return None if _GPUS.match(text) else "allowed: ids of GPUs, e.g. '0' or '0,1', or '' for none"


def _interval(value: str) -> Optional[str]:
    for part in value.split(";"):
        match = _INTERVAL.match(part)
        try:
            sound = match is not None and float(match[1]) <= float(match[2])
        except ValueError:
            sound = False
        if not sound:
            return "allowed: intervals such as '[5,inf)', several separated by ';'"
    return None


def _val_interval(value: dict[Any, Any]) -> Optional[str]:
    wrong = [part for part in value.values() if isinstance(part, str) and _interval(part)]
    wrong += [part for part in value.values() if not isinstance(part, (str, list, tuple))]
    if not wrong:
        return None
    return f"{short_repr(wrong[0])}: allowed: an interval such as '[3,inf)', or a list of tokens"


def _columns(value: dict[Any, Any]) -> Optional[str]:
    for columns in value.values():
        whole = isinstance(columns, (list, tuple)) and all(isinstance(c, str) for c in columns)
        if columns is not None and columns != "*" and not whole:
            return f"{short_repr(columns)}: allowed: a list of columns for each suffix"
    return None


def _threshold(value: dict[Any, Any]) -> Optional[str]:
    if len(value) == 1 and all(map(is_number, value.values())):
        return None
    return "allowed: one column and its least value, e.g. {rating: 3}"


def _clip_grad_norm(value: dict[Any, Any]) -> Optional[str]:
    known = ("max_norm", "norm_type", "error_if_nonfinite", "foreach")
    if set(value) - set(known):
        return f"allowed: {', '.join(known)}"
    if not is_number(value.get("max_norm")) or value["max_norm"] <= 0:
        return "max_norm must be a number above 0"
    norm_type = value.get("norm_type", 2.0)
    good = isinstance(norm_type, (int, float)) and norm_type > 0
    return None if good else "norm_type must be a number above 0"


def _train_neg_sample_args(value: dict[Any, Any]) -> Optional[str]:
    known = read_keys("recbole.yaml")["train_neg_sample_args"].default
    if set(value) - set(known):
        return f"allowed: {', '.join(known)}"
    value = {**known, **value}
    if draws_nothing(value):
        return None
    if value["distribution"] not in ("uniform", "popularity"):
        return "distribution must be uniform, popularity or none"
    dynamic = value["dynamic"]
    if not isinstance(dynamic, bool):
        return "dynamic must be true or false"
    if not _is_count(value["sample_num"], 1):
        return "sample_num must be a whole number from 1"
    if not _is_count(value["candidate_num"], 1 if dynamic else 0):
        return f"candidate_num must be a whole number from {1 if dynamic else 0}"
    return None if is_number(value["alpha"]) else "alpha must be a number"


def draws_nothing(value: dict[Any, Any]) -> bool:
    return str(value.get("distribution", "uniform")).lower() in ("none", "null")


def _benchmark_filename(value: list[Any]) -> Optional[str]:
    if len(value) == 3:
        return None
    return "allowed: three parts, in the order of training, validation and test"


def _eval_args(value: dict[Any, Any]) -> Optional[str]:
    known = ("split", "group_by", "order", "mode")
    if set(value) - set(known):
        return f"allowed: {', '.join(known)}"
    if value.get("order", "RO") not in ("RO", "TO"):
        return "order must be RO (random) or TO (by time)"
    group_by = value.get("group_by")
    if group_by is not None and group_by not in ("user", "none", "None"):
        return "group_by must be user or none"
    mode = value.get("mode", "full")
    modes = mode if isinstance(mode, dict) else {"valid": mode}
    if not modes or set(modes) - {"valid", "test"}:
        return "mode must be one for all, or nested keys valid and test"
    if not all(isinstance(one, str) and _MODE.match(one) for one in modes.values()):
        return "mode must be full, labeled, uniN or popN with N from 1"
    return _split(value["split"]) if "split" in value else None


def _split(value: Any) -> Optional[str]:
    if not isinstance(value, dict) or len(value) != 1:
        return "split must be one of RS, TS and LS, e.g. {RS: [0.8, 0.1, 0.1]}"
    ((kind, how),) = value.items()
    if kind == "LS":
        modes = ("valid_and_test", "valid_only", "test_only")
        return None if how in modes else f"split.LS must be one of {', '.join(modes)}"
    if kind not in ("RS", "TS"):
        return "split must be one of RS, TS and LS"
    three = isinstance(how, list) and len(how) == 3 and all(map(is_number, how))
    if three and min(how) >= 0 and how[0] > 0:
        return None
    return (
        f"split.{kind} must be a list of three numbers for train, valid and test, the first above 0"
    )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 10**6


FORMS: dict[str, Callable[[Any], Optional[str]]] = {
    "topk": _topk,
    "gpu_id": _gpu_id,
    "user_inter_num_interval": _interval,
    "item_inter_num_interval": _interval,
    "val_interval": _val_interval,
    "load_col": _columns,
    "unload_col": _columns,
    "unused_col": _columns,
    "threshold": _threshold,
    "clip_grad_norm": _clip_grad_norm,
    "train_neg_sample_args": _train_neg_sample_args,
    "eval_args": _eval_args,
    "benchmark_filename": _benchmark_filename,
}
"""By key; each says what is wrong with a value of the right type, or None."""
