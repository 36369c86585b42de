"""A student's features: who can be one, and reading them in every step."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, Callable, Optional

import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rng import rng_untouched
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import FeatureAdapter, with_bias_columns
from recbole_freqd.features.check import as_if_trained, ranks_alike, whole_table
from recbole_freqd.features.find import adapter_of, is_registered, registered_adapter
from recbole_freqd.features.own import OwnMethod, warn_of_other_order
from recbole_freqd.features.scores import ModelRanker, evaluating, inspecting, score_pairs


def closed_form_error(name: str) -> ConfigError:
    """Makes the message for a model that is computed where a trained one is needed."""
    return ConfigError(
        f"{name} cannot be a student: it is computed in one pass, there is no training a teacher "
        "could steer. It can be a teacher. Change model to one that is trained, e.g. BPR or "
        "LightGCN."
    )


def student_adapter(model: Any) -> FeatureAdapter:
    """Finds and checks the adapter of a model as a student.

    Raises:
        ConfigError: The model cannot be a student, or what would be taken for its features does not
            rank as the model does.
    """
    adapter, name = adapter_of(model), type(model).__name__
    adapter.check(model)
    if adapter.closed_form:
        raise closed_form_error(name)
    if adapter.student is None and registered_adapter(type(model)):
        raise ConfigError(
            f"{name} cannot be a student: its adapter, {type(adapter).__name__}, is for teachers "
            "only. Let its `student` say what a student's features are, or change model."
        )
    if adapter.student is None or not _ranks_by_features(model, adapter):
        raise ConfigError(
            f"{name} cannot be a student yet: its features are not known"
            + (", and its tables alone do not rank as it does. " if adapter.student else ". ")
            + f"Give {name} a method user_item_features() that returns user and item features, or "
            f'register an adapter: recbole_freqd.features.ADAPTERS.register("{name}")(...).'
        )
    if not _is_trained(model, adapter):
        raise ConfigError(
            f"{name} cannot be a student in this configuration: nothing that its features are "
            "made of is trained (RaCT's train_stage critic_pretrain, frozen embeddings, "
            "no_grad). Distil a stage that trains it."
        )
    return adapter


def _ranks_by_features(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether features are what a student ranks by, where they are said to be; own ones are."""
    if not adapter.exact(model):
        return True
    known = is_registered(type(model))  # then what it does with its weights was looked at
    with nullcontext() if known else as_if_trained(model):
        alike = ranks_alike(model, adapter)
    if isinstance(adapter, OwnMethod) and not alike:
        warn_of_other_order(model)
        return True
    return alike


def _is_trained(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether a gradient through the features of a user or an item reaches any weight."""
    one = torch.ones(1, dtype=torch.int64, device=model.device)
    with inspecting(model, adapter.caches), torch.enable_grad():
        rows = adapter.rows(model)
        return rows.user(one).requires_grad or rows.item(one).requires_grad


@contextmanager
def shared_features(model: Any, adapter: FeatureAdapter) -> Iterator[Callable[[], FeatureRows]]:
    """Yields a function that gives a student's features once its loss is computed inside.

    Where the adapter names a ``shared_forward``, the features are those that the loss was computed
    from; else, or if the loss did not call it, they are read afterwards, as in evaluation: without
    dropout, so that no random number is drawn for them.
    """
    name = adapter.shared_forward
    results: list[Any] = []
    if name is None:
        yield lambda: _scoring(_read_in_eval_mode(model, adapter), model, adapter)
        return
    before = model.__dict__.get(name)
    original = getattr(model, name)

    def remember(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    model.__dict__[name] = remember
    try:
        yield lambda: _scoring(
            adapter.rows_from_calls(model, results)
            if results
            else _read_in_eval_mode(model, adapter),
            model,
            adapter,
        )
    finally:
        if before is None:
            del model.__dict__[name]
        else:
            model.__dict__[name] = before


def _scoring(rows: FeatureRows, model: Any, adapter: FeatureAdapter) -> FeatureRows:
    """The same rows, that also know the model's scores where those are not their products."""
    if not adapter.exact(model):

        def predicted(user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
            streams = rng_untouched() if adapter.random_in_eval else nullcontext()
            with evaluating(model), streams:
                return score_pairs(model, user_ids, item_ids, adapter.pairs_by)

        return replace(rows, scorer=predicted)
    return replace(rows, biases=adapter.biases(model))


class StudentRanker(Ranker):
    """Ranks as a student does when it is first asked, in eval mode; the student stays unchanged.

    By :meth:`recbole_freqd.core.rows.FeatureRows.scores`: dot products of features that are read
    once, biases included, or, where it has none that rank as it does, what it predicts.

    Args:
        model: The student.
        adapter: How its features are read.
    """

    def __init__(self, model: Any, adapter: FeatureAdapter) -> None:
        self.model, self.adapter = model, adapter
        self.shape, self.device = (model.n_users, model.n_items), torch.device(model.device)

    @cached_property
    def _now(self) -> tuple[Ranker, bool]:
        """What ranks, and whether by the rows of tables."""
        model, adapter = self.model, self.adapter
        if not adapter.exact(model):
            return ModelRanker(model, adapter.caches, adapter.pairs_by), False
        with inspecting(model, adapter.caches):
            rows = adapter.rows(model)
            tables = (
                whole_table(rows.user, model.n_users, model),
                whole_table(rows.item, model.n_items, model),
            )
            ranker = FeatureRanker(*with_bias_columns(tables, adapter.biases(model)))
            return ranker, rows.tables is not None

    def exchanged(self) -> Optional[Ranker]:
        ranker, looked_up = self._now
        return ranker.exchanged() if looked_up else None

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self._now[0].block(user_ids)

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self._now[0].at(user_ids, item_ids)


def _read_in_eval_mode(model: Any, adapter: FeatureAdapter) -> FeatureRows:
    with evaluating(model):
        rows = adapter.rows(model)
    if rows.tables is not None:
        return rows  # a lookup knows no mode

    def wrapped(of: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
        def read(ids: torch.Tensor) -> torch.Tensor:
            streams = rng_untouched() if adapter.random_in_eval else nullcontext()
            with evaluating(model), streams:
                return of(ids)

        return read

    return FeatureRows(wrapped(rows.user), wrapped(rows.item))
