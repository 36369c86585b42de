"""registry: one name, one entry, whatever the case; and what every registered loss must bring."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.registry import Registry
from recbole_freqd.core.schema import method_keys
from recbole_freqd.losses import LOSSES


@pytest.fixture
def shapes():
    registry = Registry("shape")
    registry.register("Square")(4)
    registry.register("Hexagon")(6)
    return registry


def test_the_decorator_files_its_argument_and_hands_it_back():
    registry = Registry("shape")

    @registry.register("Square")
    class Square:
        pass

    assert isinstance(Square, type)
    assert registry.get("Square") is Square


@settings(deadline=None, database=None, max_examples=30)
@given(upper=st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_name_is_found_in_any_case_and_comes_back_in_its_own(upper):
    registry = Registry("shape")
    registry.register("Square")(4)
    name = "".join(c.upper() if up else c.lower() for c, up in zip("square", upper))
    assert (registry.canonical(name), registry.get(name), name in registry) == ("Square", 4, True)


def test_names_come_in_the_order_of_registration(shapes):
    assert shapes.names() == ["Square", "Hexagon"]


def test_a_name_that_differs_in_case_only_is_taken_and_the_first_entry_stays(shapes):
    with pytest.raises(ConfigError, match=r"shape 'SQUARE' is registered already"):
        shapes.register("SQUARE")(5)
    assert shapes.get("square") == 4
    assert shapes.names() == ["Square", "Hexagon"]


def test_an_unknown_name_is_an_error_that_names_the_nearest_and_all(shapes):
    with pytest.raises(
        ConfigError, match=r"Unknown shape 'sqare'\. Did you mean 'Square'\? Allowed: Hexagon, Sq"
    ):
        shapes.get("sqare")
    with pytest.raises(ConfigError, match=r"Unknown shape 'ellipse'\. Allowed: Hexagon, Square\."):
        shapes.canonical("ellipse")


@pytest.mark.parametrize("name", [5, None, ["Square"], {"Square": 1}, True])
def test_what_is_no_string_is_an_unknown_name_and_not_a_crash(shapes, name):
    assert name not in shapes
    with pytest.raises(ConfigError, match=r"Unknown shape .* Allowed: Hexagon, Square"):
        shapes.get(name)


# --- the registered losses -------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_has_a_properties_file_whose_keys_carry_its_prefix(name):
    loss = LOSSES.get(name)
    assert loss.method == name
    keys = method_keys(name)
    assert [key for key in keys if not key.startswith(f"{loss.prefix}_")] == []
    assert f"{loss.prefix}_beta" in keys


def test_no_prefix_is_the_beginning_of_another_so_a_key_belongs_to_one_loss():
    prefixes = [f"{LOSSES.get(name).prefix}_" for name in LOSSES.names()]
    assert [
        (one, other)
        for place, one in enumerate(prefixes)
        for other in prefixes[:place] + prefixes[place + 1 :]
        if other.startswith(one)
    ] == []
