"""The guard: a trainer that would ignore the teacher of its config refuses to train.

``register()`` gives RecBole's ``get_trainer`` the trainers that distil. Whatever makes one another
way (by hand, from a subclass of its own, from a ``get_trainer`` that was imported earlier or is
another package's) ends up here.
"""

import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any, Callable

from recbole_freqd.compat import Patches
from recbole_freqd.config.complete import names_ours
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.trainer.distillation import DistillationTrainer

_TRAINING = ("fit", "pretrain", "_train_epoch")
_on = False  # a guard that outlives its time, put back by somebody else's patch, does nothing


def guard_trainers(patches: Patches) -> None:
    """Makes every RecBole trainer refuse to train where its config names one of our methods.

    That is asked when the training starts, of the config as it is then: trainers that were made
    before are guarded, and evaluating stays possible with any of them. Classes that are defined
    later are guarded as well, until the patches are undone.
    """
    from recbole.trainer.trainer import AbstractTrainer

    def __init_subclass__(cls: type, **kwargs: Any) -> None:
        super(AbstractTrainer, cls).__init_subclass__(**kwargs)
        _guard(cls, patches)

    patches.set(sys.modules[__name__], "_on", True)
    patches.set(AbstractTrainer, "__init_subclass__", classmethod(__init_subclass__))
    for trainer_class in [AbstractTrainer, *_descendants(AbstractTrainer)]:
        _guard(trainer_class, patches)


def _descendants(parent: type) -> Iterator[type]:
    child: type
    for child in parent.__subclasses__():
        yield child
        yield from _descendants(child)


def _guard(trainer_class: type, patches: Patches) -> None:
    """Guards what a class trains by: methods of its own, and of parents that are no trainers."""
    if issubclass(trainer_class, DistillationTrainer):
        return
    for name in _TRAINING:
        method = inspect.getattr_static(trainer_class, name, None)
        if inspect.isfunction(method) and not hasattr(method, "_guards"):
            inherited = name not in vars(trainer_class)
            guarded = _guarded(trainer_class, name, method, inherited)
            patches.set(trainer_class, name, guarded)


def _guarded(
    trainer_class: type, name: str, method: Callable[..., Any], inherited: bool
) -> Callable[..., Any]:
    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_undistilled(self)
        if inherited:  # looked up now: the parent may have been changed since
            return getattr(super(trainer_class, self), name)(*args, **kwargs)
        return method(self, *args, **kwargs)

    guarded._guards = method  # type: ignore[attr-defined]
    return guarded


def _refuse_undistilled(trainer: Any) -> None:
    """Raises ConfigError if this trainer would ignore the teacher of its config."""
    if not _on or isinstance(trainer, DistillationTrainer):
        return
    methods = _named_methods(getattr(trainer, "config", None))
    if not methods:
        return
    name, names = type(trainer).__name__, ", ".join(methods)
    raise ConfigError(
        f"trainer: got {names}, but this {name} knows nothing of it and would train the student "
        "alone, without its teacher. Allowed: recbole_freqd.trainer.FreqDTrainer(config, model) or "
        f"recbole_freqd.trainer.dispatching({name})(config, model), get_trainer of recbole.utils "
        "if it is imported after recbole_freqd.register(), or a config without trainer."
    )


def _named_methods(config: Any) -> list[str]:
    """Lists our methods that a config names; none where ``trainer`` is somebody else's key."""
    try:
        return names_ours(config["trainer"])
    except (KeyError, TypeError):
        return []
