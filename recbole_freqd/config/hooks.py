"""The hooks in RecBole's Config after ``register()``: nested keys, defaults, the check."""

import functools
from typing import Any, Optional

from recbole_freqd.compat import Patches
from recbole_freqd.compat.literals import hook_eval
from recbole_freqd.config.complete import complete, is_checked, names_ours
from recbole_freqd.config.models import check_dataset_name, check_model_name, check_own_model
from recbole_freqd.config.names import TEACHER, refuse_what_is_no_setting
from recbole_freqd.config.reading import deep_merge, fold_dotted, read_config_file, recboles_error
from recbole_freqd.core.errors import FreqDError

_FILES = "files_as_written"


def hook_config(patches: Patches) -> None:
    """Hooks RecBole's Config; ``patches.undo()`` takes it back."""
    hook_eval(patches)
    _hook_reading(patches)
    _hook_complaints(patches)


def _hook_reading(patches: Patches) -> None:
    """Nested and dotted keys, our defaults, the check of keys."""
    from recbole.config.configurator import Config

    merge = Config._merge_external_config_dict
    load_internal = Config._load_internal_config_dict

    def _load_config_files(self: Any, file_list: Optional[list[str]]) -> dict[str, Any]:
        contents = [read_config_file(file, self.yaml_loader) for file in file_list or []]
        self.__dict__[_FILES] = contents  # whose they are is known when all is read
        return {key: value for content in contents for key, value in content.items()}

    def _merge_external_config_dict(self: Any) -> None:
        files = self.__dict__.pop(_FILES, [])
        merge(self)
        if not is_checked(self.external_config_dict):
            return
        merged: dict[str, Any] = {}
        for given in (*files, self.variable_config_dict, self.cmd_config_dict):
            merged = deep_merge(merged, fold_dotted(given))
        self.external_config_dict = merged

    def _load_internal_config_dict(self: Any, model: str, model_class: type, dataset: str) -> None:
        load_internal(self, model, model_class, dataset)
        given, internal = self.external_config_dict, self.internal_config_dict
        internal.update(check_own_model(model_class, given))
        if is_checked(given):
            refuse_what_is_no_setting(given)
        internal.update(complete(given, internal, self.parameters, model_class))
        if is_checked(given) and TEACHER in self.variable_config_dict:
            # A checkpoint keeps this dict, too, and must not need a class that the user gave.
            self.variable_config_dict = {**self.variable_config_dict, TEACHER: given.get(TEACHER)}

    for hook in (_load_config_files, _merge_external_config_dict, _load_internal_config_dict):
        patches.set(Config, hook.__name__, hook)


def _hook_complaints(patches: Patches) -> None:
    """Turns RecBole's errors about our configs into ours, and names what is near."""
    from recbole.config.configurator import Config

    initialise, find_names = Config.__init__, Config._get_model_and_dataset

    @functools.wraps(initialise)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
        except FreqDError:
            raise
        except Exception as error:
            given = self.__dict__.get("external_config_dict", {})
            if not is_checked(given):  # what does not use us is RecBole's own business
                raise
            raise recboles_error(error, given) from error

    def _get_model_and_dataset(self: Any, model: Any, dataset: Any) -> Any:
        given = self.external_config_dict
        if is_checked(given):
            name = given.get("model") if model is None else model
            taught = bool(names_ours(given.get("trainer")))
            check_model_name(name, "model", only_general=taught)
            check_dataset_name(given.get("dataset") if dataset is None else dataset)
        return find_names(self, model, dataset)

    for hook in (__init__, _get_model_and_dataset):
        patches.set(Config, hook.__name__, hook)
