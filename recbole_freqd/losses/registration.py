"""The register of losses: checks a loss before it enters, and gives it a full signature."""

import inspect
import re
from typing import Any, Callable, TypeVar

from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.core.registry import Registry
from recbole_freqd.core.schema import Key, method_keys
from recbole_freqd.losses.base import DistillationLoss

L = TypeVar("L", bound=type[DistillationLoss])


class LossRegistry(Registry[type[DistillationLoss]]):
    """The losses by method. Registration checks a loss and gives it its full signature."""

    def register(self, name: str) -> Callable[[L], L]:
        """Returns a decorator that files a loss under the name of its method.

        Raises:
            ConfigError: The name is taken; or it is not a loss, has another ``method``, shares its
                ``prefix`` with another loss, or has no file with keys of that prefix and a weight.
        """

        def file_under(loss: L) -> L:
            self.refuse_taken(name)
            self._check_class(name, loss)
            keys = self._check_keys(name, loss.prefix)
            super(LossRegistry, self).register(name)(loss)
            loss.__signature__ = _full_signature(loss.prefix, keys)  # type: ignore[attr-defined]
            return loss

        return file_under

    def _check_class(self, name: str, loss: Any) -> None:
        if not (isinstance(loss, type) and issubclass(loss, DistillationLoss)):
            raise ConfigError(
                f"trainer {name!r}: got {short_repr(loss)}; allowed: a subclass of "
                "recbole_freqd.losses.DistillationLoss."
            )
        method, prefix = getattr(loss, "method", None), getattr(loss, "prefix", None)
        if method != name:
            raise ConfigError(
                f"trainer {name!r}: {loss.__name__}.method is {short_repr(method)}; allowed: "
                f"{name!r}, the name of its registration. Change one of them."
            )
        if not (isinstance(prefix, str) and re.fullmatch(r"[a-z]+(_?[a-z0-9])*", prefix)):
            raise ConfigError(
                f"trainer {name!r}: {loss.__name__}.prefix is {short_repr(prefix)}; allowed: what "
                "its keys begin with before the underscore, in small letters, e.g. 'freqd'."
            )
        for other in self.names():
            taken = f"{self.get(other).prefix}_"
            if taken.startswith(f"{prefix}_") or f"{prefix}_".startswith(taken):
                raise ConfigError(
                    f"trainer {name!r}: {loss.__name__}.prefix is {prefix!r}, but the keys of "
                    f"trainer {other!r} begin with {taken!r}; allowed: a prefix of its own, so "
                    "that a key belongs to one loss."
                )

    @staticmethod
    def _check_keys(name: str, prefix: str) -> dict[str, Key]:
        try:
            keys = method_keys(name)
        except ConfigError as error:
            raise ConfigError(
                f"trainer {name!r} has no file of keys: {error} Call "
                f"recbole_freqd.losses.own_method({name!r}, FILE) before it is registered."
            ) from error
        wrong = [key for key in keys if not key.startswith(f"{prefix}_")]
        if wrong or f"{prefix}_beta" not in keys:
            lacks = f"has {wrong[0]!r}" if wrong else f"lacks '{prefix}_beta', its weight"
            raise ConfigError(
                f"trainer {name!r}: its file of keys {lacks}; allowed: keys that begin with "
                f"'{prefix}_', {prefix}_beta among them. Change the file, or the prefix."
            )
        return keys


def _full_signature(prefix: str, keys: dict[str, Key]) -> inspect.Signature:
    """Makes a loss's signature for ``help()``: every option with name, type and default."""
    _self, *shared, _options = inspect.signature(DistillationLoss.__init__).parameters.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(
            name[len(prefix) + 1 :], kind, default=key.default, annotation=key.annotation
        )
        for name, key in keys.items()
    ]
    return inspect.Signature([*shared[:3], *options, *shared[3:]])


LOSSES = LossRegistry("trainer")
"""Every distillation loss by its name in ``trainer:``."""
