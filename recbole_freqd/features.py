"""RecBole model -> (user features, item features): one adapter per model family."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, Optional

import torch
from torch import nn

from recbole_freqd.errors import ConfigError
from recbole_freqd.registry import Registry
from recbole_freqd.rng import rng_untouched

Features = tuple[torch.Tensor, torch.Tensor]


class FeatureAdapter:
    """How to read the features that a family of models makes its scores of.

    The score of user u and item i is, up to a monotone map, the dot product of row u of the user
    features and row i of the item features, both final (propagated) and including row 0 ([PAD]).
    """

    shared_forward: Optional[str] = None
    """A method whose result *is* the pair of features and which ``calculate_loss`` calls: in
    training its result is shared with the base loss instead of being computed a second time."""

    def features(self, model: nn.Module, with_bias: bool) -> Features:
        """The features of all users (n_users, d) and items (n_items, d), differentiable.

        Args:
            model: A model of this family.
            with_bias: Whether biases are added as columns so that dot products are whole scores.
        """
        raise NotImplementedError

    def from_calls(self, results: list[Any]) -> Features:
        """The features among what ``shared_forward`` returned during one ``calculate_loss``."""
        return results[-1]


ADAPTERS: Registry[FeatureAdapter] = Registry("feature adapter for model")
"""Adapters by the name of the model class. A subclass needs its own: it may score otherwise."""


class EmbeddingTables(FeatureAdapter):
    """``user_embedding`` and ``item_embedding`` as they are: BPR."""

    def features(self, model: nn.Module, with_bias: bool) -> Features:
        return model.user_embedding.weight, model.item_embedding.weight


class PropagatedEmbeddings(FeatureAdapter):
    """``forward()`` returns the propagated users and items: LightGCN."""

    shared_forward = "forward"

    def features(self, model: nn.Module, with_bias: bool) -> Features:
        return model.forward()


ADAPTERS.register("BPR")(EmbeddingTables())
ADAPTERS.register("LightGCN")(PropagatedEmbeddings())


def adapter_for(model_class: type) -> FeatureAdapter:
    """The adapter of a model class.

    Raises:
        ConfigError: There is none; the message lists the models that have one.
    """
    if model_class.__name__ in ADAPTERS.names():
        return ADAPTERS.get(model_class.__name__)
    raise ConfigError(
        f"No features are known for model {model_class.__name__!r}. Allowed as teacher or "
        f"student: {', '.join(ADAPTERS.names())}. Change model (or teacher.model) in the "
        "config, or register an adapter with recbole_freqd.features.ADAPTERS.register."
    )


def extract_features(model: nn.Module, with_bias: bool = True) -> Features:
    """The features a model scores with, computed afresh in eval mode and without gradient.

    The model's training flags, cached embeddings and all random streams are left as they were.

    Args:
        model: A RecBole general recommender with an adapter.
        with_bias: True: dot products of the rows reproduce the model's scores (up to a monotone
            map), biases being extra columns. False: without bias columns, as distillation wants.

    Returns:
        ``(user_features, item_features)``: (n_users, d) and (n_items, d), copies on the model's
        device; row 0 is RecBole's padding.

    Raises:
        ConfigError: No adapter for this model.
    """
    adapter = adapter_for(type(model))
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:  # not model.eval(): some models rebuild graphs in train(mode)
            module.training = False
        with torch.no_grad(), rng_untouched():
            user_emb, item_emb = adapter.features(model, with_bias)
        return user_emb.detach().clone(), item_emb.detach().clone()
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def shared_features(model: nn.Module) -> Iterator[Callable[[], Features]]:
    """Inside, the model's loss is computed; the yielded function then gives its features.

    Where the adapter names a ``shared_forward``, the features are those that the loss was computed
    from; else, or if the loss did not call it, they are read afterwards.
    """
    adapter = adapter_for(type(model))
    name = adapter.shared_forward
    results: list[Any] = []
    if name is None:
        yield lambda: adapter.features(model, with_bias=False)
        return
    before = model.__dict__.get(name)
    original = getattr(model, name)

    def remember(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    model.__dict__[name] = remember
    try:
        yield (
            lambda: (
                adapter.from_calls(results) if results else adapter.features(model, with_bias=False)
            )
        )
    finally:
        if before is None:
            del model.__dict__[name]
        else:
            model.__dict__[name] = before
