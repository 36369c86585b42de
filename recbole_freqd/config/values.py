"""Checks the values of RecBole's own keys, before anything is built from them.

RecBole looks at few of its values: an unknown optimizer becomes Adam, a misspelt interval keeps
everything, most others fail somewhere inside. ``properties/recbole.yaml`` says what each may be.
"""

from dataclasses import replace
from typing import Any

from recbole_freqd.compat.literals import value_of
from recbole_freqd.config.forms import FORMS, draws_nothing
from recbole_freqd.config.names import TEACHER, run_keys
from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr
from recbole_freqd.core.schema import is_number, method_keys, read_keys
from recbole_freqd.losses import LOSSES


def check_host_values(
    values: dict[str, Any], defaults: dict[str, Any], where: str = ""
) -> dict[str, Any]:
    """Checks those keys of RecBole that it reads unchecked and would fail on later.

    Args:
        values: All keys of a config.
        defaults: RecBole's defaults for the model and dataset; where ``properties/recbole.yaml``
            does not know a key, its value must be of the type of its default.
        where: Prefix of the keys in messages, ``"teacher."`` for a recipe.

    Returns:
        The values of ``properties/recbole.yaml``'s keys as RecBole can read them: 2 for 2.0.

    Raises:
        ConfigError: A value of another type, out of its range, or not of its form.
    """
    checked: dict[str, Any] = {}
    specs = read_keys("recbole.yaml")
    ours = set(run_keys()).union(*(method_keys(name) for name in LOSSES.names()))
    for key, default in defaults.items():
        if key in specs and key in values:
            checked[key] = _check_one(key, values[key], where)
        elif key not in ours and values.get(key) is not None:
            _check_type(f"{where}{key}", values[key], default)
    if "metrics" in checked and "topk" in checked:
        computed = _computed_metrics(checked["metrics"], checked["topk"], where)
        wanted = checked.get("valid_metric", computed[0])
        if wanted.lower() not in (name.lower() for name in computed):
            raise ConfigError(
                f"{where}valid_metric: got {short_repr(wanted)}, which metrics and topk do not "
                f"compute; allowed: {', '.join(computed[:20])}. Change valid_metric, metrics or "
                "topk."
            )
        _check_modes(checked, where)
    return checked


def check_config(config: Any, where: str = "") -> None:
    """:func:`check_host_values` of a finished Config, whose values it puts into their form."""
    values = config.final_config_dict
    values.update(check_host_values(values, config.internal_config_dict, where))


def check_recipe_values(recipe: dict[str, Any], where: str = f"{TEACHER}.") -> dict[str, Any]:
    """Checks those of a teacher's values that need no knowledge of its model.

    Args:
        recipe: The keys below ``teacher``, without reserved ones.
        where: Prefix of the keys in messages.

    Returns:
        The values that were checked, as RecBole can read them.
    """
    known = read_keys("recbole.yaml")
    return {key: _check_one(key, value_of(recipe[key]), where) for key in recipe if key in known}


def check_data(config: Any, dataset: Any) -> None:
    """Checks what a config asks for against the data.

    Args:
        config: A finished Config.
        dataset: The RecBole dataset of the training data.

    Raises:
        ConfigError: Longer rankings to be cut than there are items; no training interaction.
    """
    check_training(config)
    items = dataset.item_num - 1
    if any(map(_has_cutoffs, config["metrics"])) and max(config["topk"]) > items:
        raise ConfigError(
            f"topk: got {short_repr(config['topk'])}, but there are {items} items in the data; "
            "allowed: at most as many. Change topk, or the filters of the data."
        )
    modes, label = config["eval_args"]["mode"].values(), config["LABEL_FIELD"]
    if "labeled" in modes and label not in getattr(dataset.inter_feat, "columns", ()):
        raise ConfigError(
            f"eval_args: got mode labeled, but the data has no column {label!r}. Make one with "
            "threshold, e.g. {rating: 3}, load it with load_col, or change mode."
        )
    if len(dataset.inter_feat) == 0:
        raise ConfigError("The training data is empty. Check the dataset and its filters.")


def _check_one(key: str, value: Any, where: str) -> Any:
    spec = read_keys("recbole.yaml")[key]
    checked = replace(spec, name=f"{where}{key}").check(value)
    problem = FORMS[key](checked) if key in FORMS and checked is not None else None
    if problem:
        raise ConfigError(
            f"{where}{key}: got {short_repr(value)}; {problem}. Change it in the config file, "
            f"config_dict or with --{where}{key}=..."
        )
    if key == "gpu_id" and (checked is None or isinstance(checked, list)):
        return ",".join(map(str, checked or []))  # RecBole would make '[0, 1]' of it, or 'None'
    if key == "train_neg_sample_args" and checked and draws_nothing(checked):
        return {**checked, "distribution": None}  # of the word RecBole knows one spelling
    return checked


def _check_type(name: str, value: Any, default: Any) -> None:
    """Raises unless a value is of the type of RecBole's default; numbers are all of one type."""
    if default is None or not isinstance(default, (bool, int, float, str, list, dict)):
        return
    numbers = isinstance(default, list) and default and all(map(is_number, default))
    if isinstance(default, bool):
        good, allowed = isinstance(value, bool), "true or false"
    elif isinstance(default, (int, float)):
        good, allowed = is_number(value), "a number"
    elif isinstance(default, list):
        good, allowed = isinstance(value, (list, tuple)), "a list"
        if good and numbers:
            good, allowed = all(map(is_number, value)), "a list of numbers"
    else:
        kind = type(default)
        good, allowed = isinstance(value, kind), "a string" if kind is str else "nested keys"
    if not good:
        example = "" if default in ("", [], {}) else f", e.g. {short_repr(default)}"
        raise ConfigError(f"{name}: got {short_repr(value)}; allowed: {allowed}{example}.")


def _computed_metrics(metrics: Any, topk: Any, where: str) -> list[str]:
    """The names of the metrics that RecBole computes, e.g. ``NDCG@10``."""
    from recbole.evaluator import metric_types

    names = [metrics] if isinstance(metrics, str) else list(metrics)
    cutoffs = [topk] if isinstance(topk, int) else topk
    computed: list[str] = []
    for name in names:
        if name.lower() not in metric_types:
            raise ConfigError(
                f"{where}metrics: there is no metric {short_repr(name)}. "
                f"{did_you_mean(name, metric_types)}"
            )
        computed += [f"{name}@{k}" for k in cutoffs] if _has_cutoffs(name) else [name]
    if len({metric_types[name.lower()] for name in names}) > 1:
        raise ConfigError(
            f"{where}metrics: got {short_repr(names)}, some of rankings and some of values; "
            "allowed: metrics of one kind."
        )
    return computed


def _has_cutoffs(metric: str) -> bool:
    """Whether a metric is of rankings that are cut at ``topk``: AUC and GAUC are not."""
    from recbole.evaluator import metric_types
    from recbole.utils import EvaluatorType

    return metric_types[metric.lower()] == EvaluatorType.RANKING and metric.lower() != "gauc"


def _check_modes(checked: dict[str, Any], where: str) -> None:
    """Raises where RecBole cannot compute the metrics in the modes of evaluation."""
    from recbole.evaluator import metric_types
    from recbole.utils import EvaluatorType

    first = [checked["metrics"]] if isinstance(checked["metrics"], str) else checked["metrics"]
    ranks = metric_types[first[0].lower()] == EvaluatorType.RANKING
    mode = checked.get("eval_args", {}).get("mode", "full")
    modes = set(mode.values()) if isinstance(mode, dict) else {mode}
    wrong = "labeled" if ranks else "full"
    if wrong in modes:
        raise ConfigError(
            f"{where}eval_args: got mode {wrong} with metrics {short_repr(first)}; allowed: "
            f"metrics of {'values, such as AUC' if ranks else 'rankings, such as NDCG'}, or "
            "another mode."
        )


def check_training(config: Any, where: str = "") -> None:
    """Refuses what a model cannot be trained with: no negative items, an optimizer of sparse rows.

    Args:
        config: A finished Config.
        where: Prefix of the keys in messages.
    """
    from recbole.data.dataloader import TrainDataLoader
    from recbole.data.utils import get_dataloader
    from recbole.utils import InputType, ModelType

    if (
        config["train_neg_sample_args"]["distribution"] == "none"
        and config["MODEL_TYPE"] == ModelType.GENERAL
        and config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
        and get_dataloader(config, "train") is TrainDataLoader
    ):
        raise ConfigError(
            f"{where}train_neg_sample_args: got none, but {config['model']} learns from pairs of "
            "a positive and a negative item; allowed: distribution uniform or popularity."
        )
    own = config.model_class.__module__.partition(".")[0] not in ("recbole", "recbole_freqd")
    if config["learner"] == "sparse_adam" and not own:
        raise ConfigError(
            f"{where}learner: got 'sparse_adam', which torch has for sparse gradients only, and "
            f"those of {config['model']} are dense; allowed: adam, adamw, sgd, adagrad or rmsprop, "
            "or a model of your own with nn.Embedding(..., sparse=True). Change learner."
        )
