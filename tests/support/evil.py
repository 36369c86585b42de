"""Pickles by hand, opcode by opcode: what an attacker would write into a checkpoint."""

import zipfile

import torch

NOTHING = b"}"  # an empty dict
NONE = b"N"


def text(value):
    """A string as a pickle holds it."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def raw(value):
    """Bytes as a pickle holds them."""
    return b"B" + len(value).to_bytes(4, "little") + value


def number(value):
    """A whole number of up to 8 bytes."""
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def listed(*values):
    """A list of raw values."""
    return b"](" + b"".join(values) + b"e"


def tupled(*values):
    """A tuple of raw values."""
    return b"(" + b"".join(values) + b"t"


def mapped(**values):
    """A dict of raw values."""
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def found(module, name):
    """What a pickle finds by module and name (protocol 4: the name may have dots)."""
    return text(module) + text(name) + b"\x93"


def called(function, *arguments):
    """A call that is made when the pickle is loaded; strings are pickled, bytes are raw."""
    parts = [part if isinstance(part, bytes) else text(part) for part in arguments]
    return function + tupled(*parts) + b"R"


def made(kind, state=None):
    """An instance without its ``__init__``, as every class without a way of its own is pickled."""
    return kind + b")\x81" + (b"" if state is None else state + b"b")


def pickled(**values):
    """A pickled dict of raw values."""
    return b"\x80\x04" + mapped(**values) + b"."


# Where the parts of a checkpoint lie; what stands there is loaded before anybody looks at it.
PLACES = {
    "config": lambda evil: pickled(config=evil, state_dict=NOTHING),
    "state_dict": lambda evil: pickled(config=NOTHING, state_dict=evil),
    "a weight": lambda evil: pickled(config=NOTHING, state_dict=mapped(w=evil)),
    "optimizer": lambda evil: pickled(config=NOTHING, state_dict=NOTHING, optimizer=evil),
    "other_parameter": lambda evil: pickled(
        config=NOTHING, state_dict=NOTHING, other_parameter=mapped(w=evil)
    ),
}


def torch_file(path, data, **storages):
    """A torch checkpoint whose pickle is ``data``, with these records as storages."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(content)).partition("/")[0]
    content[f"{top}/data.pkl"] = data
    content.update({f"{top}/data/{key[1:]}": stored for key, stored in storages.items()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, stored in content.items():
            archive.writestr(name, stored)
    return path
