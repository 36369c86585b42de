"""Putting FreqD into an existing RecBole project, and taking it out again."""

import functools
import sys
from typing import Any, Optional

from recbole_freqd import compat
from recbole_freqd.core.errors import FreqDError

_hooks = compat.Patches()
_registered = False
_recboles_own: Any = None  # what register() has put run_recboles in the place of


def register() -> None:
    """Makes RecBole understand ``trainer: FreqD`` (and its other names) everywhere.

    RecBole's own ``run``, ``run_recbole`` and ``HyperTuning`` objective then use our trainer where
    a config names one, with our defaults, nested and dotted ``teacher`` keys and key checks.
    Configs that name no trainer behave as before, except that a misspelt key of ours is an error,
    and that strings of ``config_dict``, of the command line and of HyperTuning's files are read as
    literals, where RecBole runs them as code: ``"1/10"`` stays a string.

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
    from recbole_freqd.compat.literals import hook_eval

    hook_eval(_hooks)
    _hook_reading()
    _hook_complaints()


def _hook_reading() -> None:
    """Nested and dotted keys, our defaults, the check of keys."""
    from recbole.config.configurator import Config

    from recbole_freqd.config.complete import complete
    from recbole_freqd.config.models import check_own_model
    from recbole_freqd.config.names import refuse_what_is_no_setting
    from recbole_freqd.config.reading import deep_merge, fold_dotted, read_config_file

    merge = Config._merge_external_config_dict
    load_internal = Config._load_internal_config_dict

    def _load_config_files(self: Any, file_list: Optional[list[str]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for file in file_list or []:
            merged = deep_merge(merged, fold_dotted(read_config_file(file, self.yaml_loader)))
        return merged

    def _merge_external_config_dict(self: Any) -> None:
        merge(self)
        merged = fold_dotted(self.file_config_dict)
        for higher in (self.variable_config_dict, self.cmd_config_dict):
            merged = deep_merge(merged, fold_dotted(higher))
        self.external_config_dict = merged

    def _load_internal_config_dict(self: Any, model: str, model_class: type, dataset: str) -> None:
        load_internal(self, model, model_class, dataset)
        defaults = check_own_model(model_class, self.external_config_dict)
        self.internal_config_dict.update(defaults)
        if self.external_config_dict.get("trainer") is not None:
            refuse_what_is_no_setting(self.external_config_dict)
        defaults = complete(self.external_config_dict, self.internal_config_dict, self.parameters)
        self.internal_config_dict.update(defaults)

    for hook in (_load_config_files, _merge_external_config_dict, _load_internal_config_dict):
        _hooks.set(Config, hook.__name__, hook)


def _hook_complaints() -> None:
    """Where a trainer is named: RecBole's errors become ours, unknown names say what is near."""
    from recbole.config.configurator import Config

    from recbole_freqd.config.models import check_dataset_name, check_model_name
    from recbole_freqd.config.reading import recboles_error

    initialise, find_names = Config.__init__, Config._get_model_and_dataset

    @functools.wraps(initialise)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
        except FreqDError:
            raise
        except Exception as error:
            given = self.__dict__.get("external_config_dict", {})
            if given.get("trainer") is None:  # what names no trainer is RecBole's own business
                raise
            raise recboles_error(error, given) from error

    def _get_model_and_dataset(self: Any, model: Any, dataset: Any) -> Any:
        given = self.external_config_dict
        if given.get("trainer") is not None:
            check_model_name(given.get("model") if model is None else model, "model")
            check_dataset_name(given.get("dataset") if dataset is None else dataset)
        return find_names(self, model, dataset)

    for hook in (__init__, _get_model_and_dataset):
        _hooks.set(Config, hook.__name__, hook)


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
    """Trainers that were not made by get_trainer do not train alone what names a teacher."""
    from recbole_freqd.trainer.guard import guard_trainers

    guard_trainers(_hooks)


def _hook_get_model() -> None:
    """RecBole finds the models that this package adds by their names."""
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
    """Processes that RecBole's ``run`` starts know us too, and need no GPUs."""
    from recbole.quick_start import quick_start

    from recbole_freqd.compat.processes import apply_start_of_processes, only_nccl

    if only_nccl():
        apply_start_of_processes(_hooks)
    _hooks.set(sys.modules[__name__], "_recboles_own", quick_start.run_recboles)
    _hooks.set(quick_start, "run_recboles", run_recboles)


def run_recboles(local_rank: int, *arguments: Any) -> None:
    """RecBole's own, in a process that knows us: a spawned one begins with nothing registered."""
    register()
    _recboles_own(local_rank, *arguments)
