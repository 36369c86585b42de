"""A torch checkpoint read by hand: only known opcodes, only known names, every byte checked.

``torch.load`` with a restricted ``find_class`` does not do. A pickle of allowed names may still set
attributes of the classes it mentions, for the rest of the process, and hand NumPy bytes for an
array of pointers; and torch does not look at the checksums in the file (nor, before 2.13 or so, at
whether a storage is as long as its record).
"""

import io
import pickle
import pickletools
import reprlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Optional

import numpy as np
import torch

from recbole_freqd.checkpoint import values
from recbole_freqd.checkpoint.archive import Archive, Damaged
from recbole_freqd.core.errors import CheckpointError

MODEL_PACKAGES = ("recbole.model.", "recbole_freqd.teacher.models.")
"""Where the classes of models are that a checkpoint may mention."""

CONFIG = ("recbole.config.configurator", "Config")
_SPARSE = {
    f"scipy.sparse._{kind}": {f"{kind}_matrix", f"{kind}_array"} for kind in ("csr", "csc", "lil")
}
# What protocols 2 to 4 write for the values above; no OBJ, EXT, buffers or text forms.
_PLAIN = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 "
    "BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET "
    "BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID"
)
_KEYS = {str, int, float, bool, type(None)}


class Stored:
    """Stands for a class that a checkpoint mentions; never called, of its own in each file."""


class _Name:
    """Stands for what a pickle finds by name; it does nothing but one call, which is checked."""

    __slots__ = ("call", "value")

    def __init__(self, call: Optional[Callable[..., Any]] = None, value: Any = None) -> None:
        self.call, self.value = call, value


def _enum_member(name: str) -> Callable[[Any], Any]:
    def member(value: Any) -> Any:
        from recbole.utils import enum_type

        if type(value) is not int:
            raise CheckpointError(f"the file holds a {name} of {type(value).__name__}")
        return getattr(enum_type, name)(value)

    return member


def _reconstruct(array_class: Any, *arguments: Any) -> np.ndarray:
    if type(array_class) is not _Name or array_class.value not in (np.ndarray, np.matrix):
        raise CheckpointError("the file reconstructs something that is no NumPy array")
    return values.empty_array(array_class.value)(*arguments)


def _latin1(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode`` as protocol 2 uses it for bytes; other codecs open files or inflate."""
    if type(text) is not str or encoding != "latin1":
        raise CheckpointError(f"the file uses the codec {reprlib.repr(encoding)}")
    return text.encode("latin1")


_CALLS: dict[tuple[str, str], _Name] = {
    ("collections", "OrderedDict"): _Name(lambda: OrderedDict()),
    ("torch", "device"): _Name(values.torch_device),
    ("torch", "Size"): _Name(values.torch_size),
    ("torch._utils", "_rebuild_tensor_v2"): _Name(values.tensor),
    ("torch._utils", "_rebuild_parameter"): _Name(values.parameter),
    ("_codecs", "encode"): _Name(_latin1),
    ("__builtin__", "bytes"): _Name(lambda: b""),  # empty ones, in protocol 2
    ("numpy", "dtype"): _Name(values.dtype),
    ("numpy", "ndarray"): _Name(value=np.ndarray),
    ("numpy", "matrix"): _Name(value=np.matrix),
}


# What else a config may hold: paths, which come back as text, and dates, which YAML makes.
for _module in ("pathlib", "pathlib._local"):
    for _path in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        _CALLS[_module, _path] = _Name(values.path_text(_path))


for _date in ("date", "datetime"):
    _CALLS["datetime", _date] = _Name(values.date(_date))


for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CALLS[_module, "scalar"] = _Name(values.scalar)
    _CALLS[_module, "_reconstruct"] = _Name(_reconstruct)


for _enum in ("ModelType", "InputType", "EvaluatorType"):
    _CALLS["recbole.utils.enum_type", _enum] = _Name(_enum_member(_enum))


for _storage, _dtype in values.STORAGES.items():
    _CALLS["torch", _storage] = _Name(value=_dtype)


class _Opcodes(dict):
    def __missing__(self, code: int) -> Any:
        known = {opcode.code: opcode for opcode in pickletools.opcodes}.get(chr(code))
        if known is None:
            raise Damaged(f"its pickle has a byte {code:#04x} that is no opcode")
        raise CheckpointError(f"the file uses the opcode {known.name}, which no checkpoint needs")


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Python's own unpickler in Python, less everything that calls what it is told to.

    Args:
        data: The pickle.
        storage: Gives the bytes of a record by its key, on the device asked for.
        own: Module and name of one more class that may be mentioned.
    """

    def __init__(
        self, data: bytes, storage: Callable[[str], torch.Tensor], own: tuple[str, str]
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._storage, self._own = storage, own
        self._filled: dict[int, Any] = {}
        self._sparse: list[Any] = []

    def load(self) -> Any:
        payload = super().load()
        for matrix in self._sparse:  # last: until then the pickle can change its arrays
            values.check_sparse(matrix)
        return payload

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CALLS:
            return _CALLS[module, name]
        if name in _SPARSE.get(module, ()):
            import scipy.sparse

            return _Name(value=getattr(scipy.sparse, name))
        if (module, name) in (CONFIG, ("yaml.loader", "FullLoader"), self._own) or (
            module.startswith(MODEL_PACKAGES) and name.isidentifier()
        ):
            # A reference to a class, e.g. the model's: no need to import its module.
            return type(name, (Stored,), {"__module__": module})
        raise CheckpointError(
            f"the file asks for {module}.{name}, which no RecBole checkpoint holds: loading it "
            "would run foreign code"
        )

    def persistent_load(self, pid: Any) -> values.Storage:
        """A storage: ``("storage", type, key, location, length)``."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise CheckpointError("the file refers to something that is no storage")
        _, kind, key, _, length = pid
        if type(kind) is not _Name or type(kind.value) is not torch.dtype or type(key) is not str:
            raise CheckpointError("the file refers to a storage of no known type")
        storage = values.Storage(self._storage(key), kind.value)
        if type(length) is not int or length != storage.length:
            raise CheckpointError(
                f"storage {key} has {storage.length} numbers, not {reprlib.repr(length)}"
            )
        return storage

    def _load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode() for _ in range(2))
        self.find_class(module, name)  # refuses all but a few, by name
        raise CheckpointError(f"the file calls {module}.{name}, which is only stored")

    def _load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack[-1]
        if type(called) is type:
            raise CheckpointError(
                f"the file calls a class that is only stored in RecBole's checkpoints: "
                f"{called.__module__}.{called.__name__}"
            )
        if type(called) is not _Name or called.call is None or type(arguments) is not tuple:
            raise CheckpointError(f"the file calls a {type(called).__name__}")
        try:
            self.stack[-1] = called.call(*arguments)
        except TypeError as error:  # most often a wrong number of arguments
            raise CheckpointError(f"the file makes a wrong call: {error}") from None

    def _load_newobj(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if type(made) is _Name and isinstance(made.value, type) and not arguments:
            if made.value.__module__.startswith("scipy.sparse."):
                matrix: Any = object.__new__(made.value)
                self._sparse.append(matrix)
                return self.append(matrix)
        elif type(made) is type and (made.__module__, made.__name__) == CONFIG and not arguments:
            return self.append(object.__new__(made))
        name = getattr(made, "__name__", type(made).__name__)
        raise CheckpointError(f"the file calls a class that is only stored: {name}")

    def _load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, np.dtype):  # NumPy has one object for all of a kind
            return values.check_dtype_state(made, state)
        if id(made) in self._filled:
            raise CheckpointError(f"the file fills a {type(made).__name__} twice")
        self._filled[id(made)] = made  # kept alive: its id stays its own
        if type(made) in (np.ndarray, np.matrix):
            values.fill_array(made, state)
        elif any(made is matrix for matrix in self._sparse):
            values.fill_sparse(made, state)
        elif type(state) is dict and _takes(made, state):
            vars(made).update(state)
        else:
            raise CheckpointError(
                f"the file sets the state of {getattr(made, '__name__', type(made).__name__)}"
            )

    dispatch = _Opcodes()


def _takes(made: Any, state: dict[Any, Any]) -> bool:
    """Whether something stored may have these attributes: names of a Config, torch's _metadata."""
    if isinstance(made, Stored):
        return all(type(name) is str for name in state)
    return type(made) is OrderedDict and set(state) <= {"_metadata"}


def _onto(opcode: str, *kinds: type) -> Callable[[Unpickler], None]:
    """The opcode, for containers of exactly these kinds; others have methods of the same names."""
    plain = pickle._Unpickler.dispatch[getattr(pickle, opcode)[0]]  # type: ignore[attr-defined]

    def load(self: Unpickler) -> None:
        if opcode == "APPEND":
            target, keys = self.stack[-2], []
        elif opcode == "SETITEM":
            target, keys = self.stack[-3], self.stack[-2:-1]
        else:
            target = self.metastack[-1][-1]
            keys = {"APPENDS": [], "ADDITEMS": self.stack, "SETITEMS": self.stack[::2]}[opcode]
        if type(target) not in kinds:
            raise CheckpointError(f"the file adds items to a {type(target).__name__}")
        # Tuples nested in themselves take for ever to hash.
        if not {type(key) for key in keys} <= _KEYS:
            raise CheckpointError("the file has a key that is no text and no number")
        plain(self)

    return load


for _opcode in _PLAIN.split():
    _code = getattr(pickle, _opcode)[0]
    Unpickler.dispatch[_code] = pickle._Unpickler.dispatch[_code]  # type: ignore[attr-defined]


Unpickler.dispatch[pickle.INST[0]] = Unpickler._load_inst
Unpickler.dispatch[pickle.REDUCE[0]] = Unpickler._load_reduce
Unpickler.dispatch[pickle.NEWOBJ[0]] = Unpickler._load_newobj
Unpickler.dispatch[pickle.BUILD[0]] = Unpickler._load_build


for _opcode, _kinds in {
    "APPEND": (list,), "APPENDS": (list,), "ADDITEMS": (set,),
    "SETITEM": (dict, OrderedDict), "SETITEMS": (dict, OrderedDict),
}.items():  # fmt: skip
    Unpickler.dispatch[getattr(pickle, _opcode)[0]] = _onto(_opcode, *_kinds)


def read(archive: Archive, own: tuple[str, str] = ("", "")) -> Any:
    """Reads the content of a file of ``torch.save``; refuses whatever it does not know.

    Args:
        archive: The opened file.
        own: Module and name of a class that the file may mention.

    Raises:
        CheckpointError: It holds something else; nothing of it was called.
        Exception: The file is damaged; a dozen kinds.
    """
    return Unpickler(archive.record("data.pkl"), archive.storage, own).load()
