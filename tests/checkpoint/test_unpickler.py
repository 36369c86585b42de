"""unpickling, stored_values: what an attacker writes is neither run nor believed."""

import copyreg
import os
import re
import struct
import zipfile

import numpy as np
import pytest
import scipy.sparse
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint, load_plain
from recbole_freqd.core.errors import CheckpointError
from tests.support.evil import (
    NONE,
    NOTHING,
    PLACES,
    called,
    found,
    listed,
    made,
    mapped,
    number,
    pickled,
    raw,
    text,
    torch_file,
    tupled,
)

# --- calls -----------------------------------------------------------------------------------

TRUE, ZERO = b"\x88", b"K\x00"


KEPT, KEPT_ONE = b"q\x050", b"h\x05"  # into the memo and off the stack; out of the memo again


def getattr_chain(marker):
    imported = called(found("importlib", "import_module"), "os")
    system = called(found("builtins", "getattr"), KEPT_ONE, "system")
    return imported + KEPT + called(system, f"echo > {marker}")


def process(marker):
    started = called(found("subprocess", "Popen"), listed(text("touch"), text(marker)))
    wait = called(called(found("operator", "attrgetter"), "wait"), KEPT_ONE)
    return started + KEPT + called(wait)


def old_instance(marker):
    """INST, of protocol 0: module and name stand in the opcode itself."""
    return b"(" + text(f"echo > {marker}") + b"ios\nsystem\n"


def old_object(marker):
    """OBJ, of protocol 1."""
    return b"(" + found("os", "system") + text(f"echo > {marker}") + b"o"


def by_extension_code(marker):
    """EXT1: a number that stands for a name, where somebody has registered one."""
    return called(b"\x82\xf0", f"echo > {marker}")


def nested_pickle(marker):
    inner = b"\x80\x04" + called(found("os", "system"), f"echo > {marker}") + b"."
    return called(found("_pickle", "loads"), raw(inner))


# What the file asks for, by the name in the refusal, and a call that makes the file `marker`.
ATTACKS = {
    "os.system": lambda marker: called(found("os", "system"), f"echo > {marker}"),
    "posix.system": lambda marker: called(found("posix", "system"), f"echo > {marker}"),
    "builtins.eval": lambda marker: called(found("builtins", "eval"), f"open({marker!r}, 'w')"),
    "builtins.exec": lambda marker: called(found("builtins", "exec"), f"open({marker!r}, 'w')"),
    "__builtin__.eval": lambda marker: (
        b"\x80\x02c__builtin__\neval\n" + tupled(text(f"open({marker!r}, 'w')")) + b"R"
    ),
    "builtins.open": lambda marker: called(found("builtins", "open"), marker, "w"),
    "builtins.getattr": lambda marker: called(
        called(found("builtins", "getattr"), called(found("pathlib", "Path"), marker), "touch")
    ),
    "importlib.import_module": getattr_chain,
    "functools.partial": lambda marker: called(
        called(found("functools", "partial"), found("builtins", "open"), marker, "w")
    ),
    "operator.methodcaller": lambda marker: called(
        called(found("operator", "methodcaller"), "touch"), called(found("pathlib", "Path"), marker)
    ),
    "subprocess.Popen": process,
    "_pickle.loads": nested_pickle,
    # functions of packages that others of the allowed names come from
    "recbole.utils.utils.ensure_dir": lambda marker: called(
        found("recbole.utils.utils", "ensure_dir"), marker
    ),
    "recbole_freqd.core.files.write_json": lambda marker: called(
        found("recbole_freqd.core.files", "write_json"), marker, ZERO
    ),
    "torch.save": lambda marker: called(found("torch", "save"), "content", marker),
    "numpy.savetxt": lambda marker: called(found("numpy", "savetxt"), marker, b"](K\x01e"),
    "numpy.memmap": lambda marker: called(
        found("numpy", "memmap"), marker, "uint8", "w+", ZERO, tupled(b"K\x01")
    ),
    "scipy.io.savemat": lambda marker: called(
        found("scipy.io", "savemat"), marker, NOTHING, b"\x89"
    ),
    # names with dots, which lead out of an allowed module or class
    "torch.os.system": lambda marker: called(found("torch", "os.system"), f"echo > {marker}"),
    "torch.UntypedStorage.from_file": lambda marker: called(
        found("torch", "UntypedStorage.from_file"), marker, TRUE, b"K\x08"
    ),
    "recbole.model.loss.torch.os.system": lambda marker: called(
        found("recbole.model.loss", "torch.os.system"), f"echo > {marker}"
    ),
}
OPCODES = {"INST": old_instance, "OBJ": old_object, "EXT1": by_extension_code}


@pytest.fixture
def registered_extension():
    copyreg.add_extension("os", "system", 0xF0)
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_call_hidden_in_a_checkpoint_is_refused_by_name_and_not_made(tmp_path, name, place):
    marker = tmp_path / "made"
    path = torch_file(tmp_path / "evil.pth", PLACES[place](ATTACKS[name](str(marker))))
    with pytest.raises(
        CheckpointError, match=rf"evil\.pth is refused: the file asks for {re.escape(name)}, "
    ):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_plain(path)
    assert not marker.exists()
    load_checkpoint(path, trust=True)
    assert marker.exists(), "the attack is none: this test could not fail"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("opcode", OPCODES)
def test_an_old_way_to_write_a_call_is_refused_and_not_made(
    tmp_path, registered_extension, opcode, place
):
    marker = tmp_path / "made"
    path = torch_file(tmp_path / "evil.pth", PLACES[place](OPCODES[opcode](str(marker))))
    with pytest.raises(CheckpointError, match=r"evil\.pth is refused: .*(os\.system|opcode EXT1)"):
        load_checkpoint(path)
    assert not marker.exists()
    load_checkpoint(path, trust=True)
    assert marker.exists(), "the attack is none: this test could not fail"


class Evil:
    """What an attacker's own code would pickle."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo > {self.marker}",)


@pytest.mark.parametrize("place", ["config", "state_dict", "optimizer", "other_parameter"])
def test_a_call_put_into_a_real_checkpoint_of_recbole_is_refused_and_not_made(
    trained, tmp_path, place
):
    path, _ = trained("BPR")
    payload, marker = torch.load(path, weights_only=False), tmp_path / "made"
    if place == "config":
        payload["config"].final_config_dict["embedding_size"] = Evil(marker)
    else:
        payload[place] = {**(payload[place] or {}), "evil": [Evil(marker)]}
    torch.save(payload, path, pickle_protocol=4)
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.system, which"):
        load_checkpoint(path)
    assert not marker.exists()


# --- names that are only mentioned -------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("recbole.utils", "get_model"),
        ("torch", "os.FloatStorage"),
        ("torch", "FloatStorage.from_file"),
        ("torch", "UntypedStorage"),
        ("torch", "nn.Module"),
        ("torch", "dtype"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "load"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__call__"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.numeric", "_frombuffer"),
        ("scipy.sparse", "load_npz"),
        ("scipy.sparse._csr", "np.load"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("copy_reg", "_reconstructor"),
        ("_codecs", "open"),
        ("types", "FunctionType"),
        ("yaml.loader", "UnsafeLoader"),
        ("yaml", "load"),
        ("recbole.modelling", "BPR"),
        ("recbole.model.layers", "np.load"),
        ("recbole.config", "Config"),
        ("recbole_freqd.checkpoint.loading", "load_checkpoint"),
        ("builtins", "object"),
        ("", "eval"),
    ],
)
def test_only_the_exact_names_that_recbole_writes_are_found(tmp_path, module, name):
    path = torch_file(tmp_path / "x.pth", pickled(config=found(module, name), state_dict=NOTHING))
    with pytest.raises(CheckpointError, match=f"asks for {re.escape(f'{module}.{name}')}, which"):
        load_checkpoint(path)


CONFIG = found("recbole.config.configurator", "Config")
MODEL = found("recbole.model.general_recommender.bpr", "BPR")


@pytest.mark.parametrize(
    ("module", "name"),
    [("recbole.config.configurator", "Config"), ("yaml.loader", "FullLoader"),
     ("recbole.model.general_recommender.bpr", "BPR")],
)  # fmt: skip
def test_a_class_that_is_only_stored_cannot_be_called(host, tmp_path, module, name):
    """RecBole's Config passes the strings it is called with through eval."""
    marker = tmp_path / "made"
    code = mapped(x=text(f"__import__('os').system('echo > {marker}')"))
    evil = called(found(module, name), NONE, NONE, NONE, code)
    path = torch_file(tmp_path / "evil.pth", PLACES["state_dict"](evil))
    with pytest.raises(CheckpointError, match="calls a class that is only stored"):
        load_checkpoint(path)
    assert not marker.exists()


ARRAY, MATRIX = found("numpy", "ndarray"), found("numpy", "matrix")
CSR = found("scipy.sparse._csr", "csr_matrix")
ENUM = found("recbole.utils.enum_type", "ModelType")
REBUILD = found("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize("kind", [CONFIG, MODEL, ARRAY, MATRIX, CSR, ENUM, REBUILD])
@pytest.mark.parametrize("slots", [False, True])
def test_a_stored_name_cannot_change_the_class_or_function_it_stands_for(
    host, tmp_path, kind, slots
):
    """BUILD on a class: pickle would set its attributes, for the rest of the process."""
    import recbole.config
    from recbole.utils import enum_type

    real = [recbole.config.Config, np.matrix, scipy.sparse.csr_matrix, enum_type.ModelType]
    before = [dict(vars(one)) for one in real]
    changes = mapped(
        __init__=found("collections", "OrderedDict"), _load_cmd_line=text("gone"), __dict__=NOTHING
    )
    evil = kind + (tupled(NONE, changes) if slots else changes) + b"b"
    path = torch_file(tmp_path / "evil.pth", PLACES["state_dict"](evil))
    with pytest.raises(CheckpointError, match="sets the state of|is refused"):
        load_checkpoint(path)
    assert [dict(vars(one)) for one in real] == before


def test_a_stored_config_cannot_replace_the_methods_of_the_real_one(tmp_path):
    named = {"final_config_dict": mapped(model=text("BPR")), "model_class": MODEL}
    state = mapped(**named, __getitem__=text("x"), _init_device=NONE)
    path = torch_file(tmp_path / "x.pth", pickled(config=made(CONFIG, state), state_dict=NOTHING))
    with pytest.raises(CheckpointError, match=r"replaces \['__getitem__', '_init_device'\]"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"state_dict": NONE}, "'state_dict' must hold tensors"),
        ({"state_dict": mapped(w=text("x"))}, "'state_dict' must hold tensors"),
        ({"other_parameter": text("x")}, "'other_parameter' values by name"),
        ({"config": text("x")}, "holds a str as its 'config'"),
        ({"config": made(CONFIG, mapped(x=NONE))}, "holds a Config as its 'config'"),
        ({"config": made(CONFIG, mapped(final_config_dict=NONE))}, "names no model"),
        ({"config": made(CONFIG, mapped(final_config_dict=NOTHING))}, "names no model"),
        (
            {"config": made(CONFIG, mapped(final_config_dict=mapped(model=text("BPR"))))},
            "names no model",
        ),
    ],
)
def test_parts_that_are_not_what_recbole_saves_are_an_error(tmp_path, parts, message):
    named = mapped(final_config_dict=mapped(model=text("BPR")), model_class=MODEL)
    whole = {"config": made(CONFIG, named), "state_dict": NOTHING}
    load_checkpoint(torch_file(tmp_path / "x.pth", pickled(**whole)))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(torch_file(tmp_path / "x.pth", pickled(**{**whole, **parts})))


# --- values that NumPy, SciPy and torch would believe --------------------------------------------

DTYPE, OBJECTS = found("numpy", "dtype"), 63
PICKLED_ARRAY = found("numpy.core.multiarray", "_reconstruct")
NUMPY_SCALAR = found("numpy._core.multiarray", "scalar")


def dtype(kind, flags=0, fields=NONE, names=NONE, order="<"):
    state = tupled(b"K\x03", text(order), NONE, names, fields, b"J\xff\xff\xff\xff",
                   b"J\xff\xff\xff\xff", number(flags))  # fmt: skip
    return called(DTYPE, kind, b"\x89", TRUE) + state + b"b"


def array(shape, kind, data, array_class=ARRAY):
    empty = called(PICKLED_ARRAY, array_class, tupled(ZERO), raw(b"b"))
    return empty + tupled(b"K\x01", tupled(*map(number, shape)), kind, b"\x89", data) + b"b"


def ids(*values):
    return array([len(values)], dtype("i4"), raw(struct.pack(f"<{len(values)}i", *values)))


def floats(count):
    return array([count], dtype("f4"), raw(bytes(4 * count)))


def csr(indices, indptr, shape=(2, 3), count=2, kind=CSR, **more):
    sides = tupled(*map(number, shape))
    return made(
        kind, mapped(_shape=sides, indices=indices, indptr=indptr, data=floats(count), **more)
    )


def lil(rows, data):
    objects = dtype("O8", OBJECTS, order="|")
    return made(
        found("scipy.sparse._lil", "lil_matrix"),
        mapped(
            _shape=tupled(number(1), number(3)),
            dtype=dtype("f8"),
            rows=array([1], objects, listed(rows)),
            data=array([1], objects, listed(data)),
        ),
    )


def storage(length, key="0", kind="FloatStorage", what="storage"):
    parts = [text(what), found("torch", kind), text(key), text("cpu"), number(length)]
    return tupled(*parts) + b"Q"


def tensor(*sizes, stored=4, offset=0, strides=None, hooks=NONE):
    strides = [1] * len(sizes) if strides is None else strides
    parts = [storage(stored), number(offset), tupled(*map(number, sizes))]
    return called(REBUILD, *parts, tupled(*map(number, strides)), b"\x89", hooks)


HUGE = 10**12
UNSOUND = {
    "objects whose type says they are none": array([1], dtype("O8", 0, order="|"), raw(b"A" * 8)),
    "objects made of bytes": array([1], dtype("O8", OBJECTS, order="|"), raw(b"A" * 8)),
    "a scalar that is a pointer": called(NUMPY_SCALAR, dtype("O8", 0, order="|"), raw(b"A" * 8)),
    "a scalar that is a pickle": called(NUMPY_SCALAR, dtype("O8", OBJECTS, order="|"), raw(b"N.")),
    "a scalar of too few bytes": called(NUMPY_SCALAR, dtype("f8"), raw(b"A")),
    "a type with fields": array(
        [1], dtype("V8", fields=mapped(a=tupled(dtype("O8"), ZERO)), names=tupled(text("a"))), raw(b"A" * 8)
    ),
    "fields in a plain type": array([1], dtype("f8", fields=NOTHING), raw(b"A" * 8)),
    "a type of the other byte order": array([1], dtype("f4", order=">"), raw(b"A" * 4)),
    "an array of more than its bytes": array([HUGE], dtype("f4"), raw(b"A" * 4)),
    "an array of less than nothing": array([-1, -1], dtype("f4"), raw(b"A" * 4)),
    "a long array of nothing yet": called(PICKLED_ARRAY, ARRAY, tupled(number(HUGE)), raw(b"b")),
    "an array of another class": called(PICKLED_ARRAY, CSR, tupled(ZERO), raw(b"b")),
    "a matrix of one side": array([1], dtype("f4"), raw(b"A" * 4), MATRIX),
    "an array filled twice": floats(2) + tupled(b"K\x01", tupled(), dtype("f4"), TRUE, raw(b"AAAA")) + b"b",
    "a column that is not there": csr(ids(0, 10**6), ids(0, 1, 2)),
    "a column before the first": csr(ids(0, -1), ids(0, 1, 2)),
    "rows that go back": csr(ids(0, 1), ids(0, 2, 1)),
    "rows beyond the columns": csr(ids(0, 1), ids(0, 1, 10**6)),
    "too few rows": csr(ids(0, 1), ids(0, 2)),
    "fewer values than columns": csr(ids(0, 1), ids(0, 1, 2), count=1),
    "columns that are text": csr(text("ab"), ids(0, 1, 2)),
    "columns that are never filled": csr(
        called(PICKLED_ARRAY, ARRAY, tupled(ZERO), raw(b"b")), ids(0, 1, 2)
    ),
    "a shape that is text": csr(ids(0, 1), ids(0, 1, 2), shape=()),
    "a method of the matrix": csr(ids(0, 1), ids(0, 1, 2), dot=NOTHING),
    "a csc matrix with a row that is not there": csr(
        ids(0, 2), ids(0, 1, 1, 2), kind=found("scipy.sparse._csc", "csc_matrix")
    ),
    "a list of a column that is not there": lil(listed(number(10**6)), listed(number(1))),
    "lists of two lengths": lil(listed(ZERO), listed(ZERO, ZERO)),
    "values that are text": lil(listed(ZERO), listed(text("x"))),
    "a tensor larger than its storage": tensor(HUGE),
    "a tensor beyond its storage": tensor(4, offset=1),
    "a tensor with steps beyond it": tensor(2, strides=[4]),
    "a tensor that repeats one number": tensor(HUGE, strides=[0]),
    "a tensor that begins before it": tensor(1, offset=-1),
    "a tensor that goes back": tensor(2, strides=[-1], offset=1),
    "a tensor of many sides": tensor(*[1] * 100),
    "a tensor with hooks": tensor(4, hooks=mapped(x=text("hook"))),
    "a tensor of something else": called(REBUILD, ids(1), ZERO, tupled(ZERO), tupled(ZERO), NONE, NONE),
    "a tensor with too few arguments": called(REBUILD, storage(4)),
    "a storage longer than its record": storage(HUGE),
    "a storage that is not there": storage(4, key="../../secret"),
    "a storage by another name": storage(4, what="module"),
    "a storage of a class": tupled(text("storage"), CSR, text("0"), text("cpu"), number(4)) + b"Q",
    "a reference that is text": text("storage") + b"Q",
    "a reference to a file in text": b"P/etc/passwd\n",
    "a shape of 10**12 lists": called(found("torch", "Size"), listed(number(HUGE))),
    "a codec that inflates": called(found("_codecs", "encode"), raw(b"x"), "zip"),
    "a codec of text": called(found("_codecs", "encode"), "x", "idna"),
    "a member of an enum that is none": called(ENUM, "x"),
    "a new enum": called(ENUM, "x", listed(text("A"))),
    "a new object of a class that is only stored": made(MODEL),
    "an array made past its own way": made(ARRAY),
    "a Config with arguments": CONFIG + tupled(text("x")) + b"\x81",
    "an object with keywords": CONFIG + b")}\x92",
    "items in a class": CSR + text("x") + b"a",
    "items in an array": ids(1) + b"(" + text("x") + b"e",
    "keys in a Config": made(CONFIG) + text("a") + text("b") + b"s",
    "a method of a dict": called(found("collections", "OrderedDict")) + mapped(items=NONE) + b"b",
    "a buffer of 10**18 bytes": b"\x96" + (10**18).to_bytes(8, "little"),
    "a string of 10**18 bytes": b"\x8d" + (10**18).to_bytes(8, "little"),
    "a frame of 10**18 bytes": b"\x95" + (10**18).to_bytes(8, "little"),
    "a key that takes for ever to hash": b"}" + b")" + b"2\x86" * 1 + text("x") + b"s",
    "a key of tuples in tuples": b"})" + b"q\x07h\x07\x86" * 60 + text("x") + b"s",
    "a path of numbers": called(found("pathlib", "PosixPath"), number(5)),
    "a path of paths": called(found("pathlib", "PosixPath"), tupled(text("a"))),
    "a path that looks at the disk": called(found("pathlib", "Path"), text("a")),
    "a date of text": called(found("datetime", "date"), text("2026-01-01")),
    "a date of month 255": called(found("datetime", "date"), raw(b"\x07\xe4\xff\x01")),
    "a time with a zone": called(found("datetime", "datetime"), raw(bytes(10)), text("zone")),
    "an opcode that is none": b"\xff",
    "nothing to take": b"000000",
}  # fmt: skip


@pytest.mark.parametrize("name", UNSOUND)
def test_a_value_that_is_not_sound_is_an_error_before_it_is_made(host, tmp_path, name):
    evil = PLACES["other_parameter"](UNSOUND[name])
    path = torch_file(tmp_path / "evil.pth", evil, _0=bytes(16))
    with pytest.raises(CheckpointError, match=r"evil\.pth (is refused|cannot be read): "):
        load_checkpoint(path)


def test_an_array_cannot_change_once_the_matrix_made_of_it_is_checked(host, tmp_path):
    late = b"}" + text("m") + csr(ids(0, 1) + b"q\x09", ids(0, 1, 2)) + b"s"
    change = tupled(
        b"K\x01", tupled(number(2)), dtype("i4"), b"\x89", raw(struct.pack("<2i", 0, 10**6))
    )
    path = torch_file(
        tmp_path / "evil.pth", PLACES["config"](tupled(late, b"h\x09" + change + b"b"))
    )
    with pytest.raises(CheckpointError, match="fills a ndarray twice"):
        load_checkpoint(path)


SOUND = {
    "an array": (ids(1, 2), np.array([1, 2], np.int32)),
    "a matrix": (array([1, 2], dtype("f4"), raw(bytes(8)), MATRIX), np.matrix([[0.0, 0.0]])),
    "a sparse matrix": (csr(ids(0, 2), ids(0, 1, 2)), None),
    "lists": (lil(listed(ZERO), listed(number(5))), None),
    "a tensor": (tensor(2, 2, strides=[2, 1]), torch.zeros(2, 2)),
    "a number": (called(NUMPY_SCALAR, dtype("f8"), raw(struct.pack("<d", 0.5))), 0.5),
}


@pytest.mark.parametrize("name", SOUND)
def test_the_same_by_hand_and_sound_is_loaded(host, tmp_path, name):
    """Else the refusals above could be for a slip in the pickles of this test."""
    value, expected = SOUND[name]
    path = torch_file(tmp_path / "x.pth", pickled(x=value), _0=bytes(16))
    loaded, trusted = load_plain(path)["x"], torch.load(path, weights_only=False)["x"]
    assert type(loaded) is type(trusted)
    if scipy.sparse.issparse(loaded):
        assert (loaded.toarray() == trusted.toarray()).all()
    else:
        assert np.array_equal(loaded, expected)
        assert np.array_equal(loaded, trusted)


class Own:
    """Pickles what it is told."""

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.25),
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["ä", "b"]),
        np.array([True, False]),
        np.zeros((0, 3), np.float32),
        np.matrix([[1.0, 2.0]]),
        scipy.sparse.csr_matrix(np.eye(3)),
        scipy.sparse.csc_array(np.eye(3)),
        scipy.sparse.lil_matrix(np.eye(3)),
        scipy.sparse.csr_matrix((3, 3)),
        torch.arange(6).reshape(2, 3).t(),
        torch.zeros(0, 3),
        torch.tensor(True),
        torch.ones(2, dtype=torch.bfloat16),
        torch.nn.Parameter(torch.ones(2)),
        torch.Size([1, 2]),
        torch.device("cpu"),
        {"a": [1, (2.5, None, True)], 3: {"b"}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_models_are_made_of_comes_back_as_it_was(tmp_path, value, protocol):
    content = {"x": value, "again": value}
    if protocol == 2 and isinstance(value, dict):
        value[3] = None  # a set is a call of `set` in protocol 2
    torch.save(content, tmp_path / "x.pth", pickle_protocol=protocol)
    loaded = load_plain(tmp_path / "x.pth")
    assert loaded["x"] is loaded["again"]
    loaded = loaded["x"]
    assert type(loaded) is type(value)
    if scipy.sparse.issparse(value):
        assert loaded.dtype == value.dtype
        assert (loaded.toarray() == value.toarray()).all()
    elif isinstance(value, (np.ndarray, torch.Tensor)):
        assert loaded.dtype == value.dtype
        assert loaded.shape == value.shape
        assert (loaded == value).all()
    else:
        assert loaded == value


def test_tensors_that_share_memory_share_it_again(tmp_path):
    whole = torch.arange(6.0)
    torch.save({"whole": whole, "part": whole[2:4]}, tmp_path / "x.pth", pickle_protocol=4)
    loaded = load_plain(tmp_path / "x.pth")
    loaded["whole"][2] = 9
    assert loaded["part"].tolist() == [9, 3]


# --- archives ----------------------------------------------------------------------------------


def rewritten(path, change):
    """The same records in another zip file: ``change`` maps a list of (name, content)."""
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, *how in change(records):
            archive.writestr(name, content, *how)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: [*records, records[0]], "two records of one name"),
        (lambda records: [(*one, zipfile.ZIP_DEFLATED) for one in records], "compressed"),
        (lambda records: [("x/" + name, content) for name, content in records], "no record data"),
        (lambda records: [*records, ("other/data.pkl", b"N.")], "no record data"),
        (lambda records: [one for one in records if "data/" not in one[0]], "data/0 is missing"),
        (lambda records: [one for one in records if ".pkl" not in one[0]], "no record data"),
        (lambda records: [], "does not begin as a zip file"),
        (
            lambda records: [
                (name, b"big" if name.endswith("byteorder") else content)
                for name, content in records
            ],
            "big-endian",
        ),
    ],
)
def test_a_zip_file_that_torch_would_not_write_is_an_error(tmp_path, change, message):
    path = tmp_path / "x.pth"
    torch.save({"config": 1, "state_dict": {"w": torch.ones(3)}}, path)
    rewritten(path, change)
    with pytest.raises(CheckpointError, match=rf"x\.pth cannot be read: .*{message}"):
        load_checkpoint(path)
