"""Putting FreqD into an existing RecBole project, and taking it out again."""

import sys
from typing import Any

from recbole_freqd import compat

_hooks = compat.Patches()
_registered = False
_recboles_own: Any = None  # what register() has put run_recboles in the place of


def register() -> None:
    """Makes RecBole understand ``trainer: FreqD`` (and its other names) everywhere.

    RecBole's own ``run``, ``run_recbole`` and ``HyperTuning`` objective then use our trainer where
    a config names one, with our defaults, nested and dotted ``teacher`` keys and key checks.
    Configs that use nothing of ours behave as before, whatever their keys are called, except that
    strings of ``config_dict``, of the command line and of HyperTuning's files are read as literals,
    where RecBole runs them as code: ``"1/10"`` stays a string. What counts as use:
    :func:`recbole_freqd.config.complete.uses_us`.

    A trainer that was made another way than by RecBole's ``get_trainer`` refuses to train what
    names a trainer of ours, whenever it was made; it can still evaluate.

    RecBole's ``run`` with ``nproc`` starts processes that are registered too: for configs that name
    a trainer on GPUs or, where there is none, on the CPU.

    Call it at the top of a script, before ``recbole.quick_start`` is imported: that import is what
    fails on today's packages, and spawned processes run the top of the script again. Calling it
    twice does nothing more; :func:`unregister` takes it back.

    Raises:
        CompatibilityError: RecBole is missing, or it or pandas is of a version we cannot run on.

    Example:
        >>> import recbole_freqd
        >>> recbole_freqd.register()
        >>> from recbole.quick_start import run_recbole
        >>> recbole_freqd.unregister()
    """
    global _registered
    if _registered:
        return
    compat.install_shims()
    _hook_config()
    _hook_get_trainer()
    _hook_training()
    _hook_get_model()
    _hook_launch()
    _registered = True


def unregister() -> None:
    """Takes back everything :func:`register` did, the compatibility shims included."""
    global _registered
    _hooks.undo()
    compat.remove_shims()
    _registered = False


def _hook_config() -> None:
    from recbole_freqd.config.hooks import hook_config

    hook_config(_hooks)


def _hook_get_trainer() -> None:
    import recbole.quick_start.quick_start
    import recbole.utils
    import recbole.utils.utils

    from recbole_freqd.trainer.distillation import dispatching

    found_by_host = recbole.utils.utils.get_trainer

    def get_trainer(model_type: Any, model_name: str) -> type:
        return dispatching(found_by_host(model_type, model_name))

    for module in (recbole.utils.utils, recbole.utils, recbole.quick_start.quick_start):
        _hooks.set(module, "get_trainer", get_trainer)


def _hook_training() -> None:
    """Refuses trainers that get_trainer did not make, where a config names a teacher."""
    from recbole_freqd.trainer.guard import guard_trainers

    guard_trainers(_hooks)


def _hook_get_model() -> None:
    """Lets RecBole find the models that this package adds by name."""
    import recbole.config.configurator
    import recbole.quick_start.quick_start
    import recbole.utils
    import recbole.utils.utils

    from recbole_freqd.config.models import own_model

    found_by_host = recbole.utils.utils.get_model

    def get_model(model_name: str) -> type:
        return own_model(model_name) or found_by_host(model_name)

    for module in (
        recbole.utils.utils,
        recbole.utils,
        recbole.config.configurator,
        recbole.quick_start.quick_start,
    ):
        _hooks.set(module, "get_model", get_model)


def _hook_launch() -> None:
    """Registers this package in the processes that RecBole's ``run`` starts, also without GPUs."""
    from recbole.quick_start import quick_start

    from recbole_freqd.compat.processes import apply_start_of_processes, only_nccl

    if only_nccl():
        apply_start_of_processes(_hooks)
    _hooks.set(sys.modules[__name__], "_recboles_own", quick_start.run_recboles)
    _hooks.set(quick_start, "run_recboles", run_recboles)


def run_recboles(local_rank: int, *arguments: Any) -> None:
    """Registers in a spawned process, then runs RecBole's own function."""
    register()
    _recboles_own(local_rank, *arguments)
