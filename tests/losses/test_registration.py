"""registration: what a loss must bring to be in the register, and what ``help()`` says of it."""

import inspect
from typing import get_type_hints

import pytest

from recbole_freqd.core import schema
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import method_keys
from recbole_freqd.losses import LOSSES, DistillationLoss, FDLoss
from recbole_freqd.losses.base import SharedOptions
from recbole_freqd.losses.registration import LossRegistry

every_loss = pytest.mark.parametrize("name", LOSSES.names())


def options_of(name):
    """The keys of a method by the names that its options have."""
    prefix = LOSSES.get(name).prefix
    return {key[len(prefix) + 1 :]: spec for key, spec in method_keys(name).items()}


@every_loss
def test_help_names_every_option_with_the_type_and_default_of_the_properties_file(name):
    parameters = inspect.signature(LOSSES.get(name)).parameters
    shared = inspect.signature(DistillationLoss.__init__).parameters
    keys = options_of(name)
    assert set(parameters) == set(keys) | set(shared) - {"self", "options"}
    for option, key in keys.items():
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default == key.default
        assert parameters[option].annotation == key.annotation


@every_loss
def test_what_type_checkers_read_of_a_loss_agrees_with_its_properties_file(name):
    loss = LOSSES.get(name)
    (declared,) = get_type_hints(loss.__init__)["options"].__args__
    types = get_type_hints(declared)
    shared = get_type_hints(SharedOptions)
    assert {option: types.pop(option) for option in shared} == shared
    assert types == {option: key.annotation for option, key in options_of(name).items()}


def test_what_every_loss_takes_has_the_types_of_the_base_class():
    parameters = get_type_hints(DistillationLoss.__init__)
    shared = get_type_hints(SharedOptions)
    assert shared.items() <= parameters.items()
    assert set(parameters) - set(shared) == {
        *("user_items", "student_dims", "teacher_features", "options", "return")
    }


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Registers a loss with a file of its own beside FD: ``register("Mine", "mine", "mine_beta")``."""
    monkeypatch.setattr(schema, "_OWN_FILES", {})
    registry = LossRegistry("trainer")
    registry.register("FD")(FDLoss)

    def attempt(method, prefix, *keys, name="Mine", base=DistillationLoss):
        if keys:
            file = tmp_path / "mine.yaml"
            file.write_text("".join(f"{key}: 1.0  # (float, >= 0) a key\n" for key in keys))
            schema.read_keys.cache_clear()
            schema._read_lines.cache_clear()
            schema.own_method(name, file)
        loss = type("MineLoss", (base,), {"method": method, "prefix": prefix})
        return registry.register(name)(loss), registry

    return attempt


def test_a_loss_with_name_prefix_and_keys_is_registered_and_has_its_signature(register):
    loss, registry = register("Mine", "mine", "mine_beta", "mine_power")
    assert registry.get("mine") is loss
    assert inspect.signature(loss).parameters["power"].default == 1.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("Other", "mine", "mine_beta"), r"MineLoss\.method is 'Other'; allowed: 'Mine', the name"),
        (("Mine", "mine_", "mine_beta"), r"MineLoss\.prefix is 'mine_'; allowed: .* e\.g\. 'freqd'"),
        (("Mine", None, "mine_beta"), r"MineLoss\.prefix is None"),
        (("Mine", "fd", "fd_beta"), r"prefix is 'fd', but the keys of trainer 'FD' begin with 'fd_'"),
        (("Mine", "fd_x", "fd_x_beta"), r"prefix is 'fd_x', but the keys of trainer 'FD' begin"),
        (("Mine", "mine"), r"no file of keys: .*Mine\.yaml does not exist.*own_method\('Mine', FILE"),
        (("Mine", "mine", "mine_beta", "power"), r"file of keys has 'power'; allowed: .*'mine_'"),
        (("Mine", "mine", "mine_power"), r"file of keys lacks 'mine_beta', its weight"),
    ],
)  # fmt: skip
def test_a_loss_that_lacks_something_is_an_error_that_says_what(register, given, words):
    with pytest.raises(ConfigError, match=words):
        register(*given)


def test_what_is_no_loss_and_what_is_registered_already_are_refused(register):
    with pytest.raises(
        ConfigError, match=r"trainer 'Mine': got <class .*MineLoss'>; allowed: a sub"
    ):
        register("Mine", "mine", "mine_beta", base=object)
    _, registry = register("Mine", "mine", "mine_beta")
    with pytest.raises(ConfigError, match="'MINE' is registered already"):
        registry.register("MINE")(type("M", (DistillationLoss,), {"method": "MINE", "prefix": "m"}))
    assert registry.names() == ["FD", "Mine"]
