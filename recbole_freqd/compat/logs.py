"""RecBole's log handlers: those that outlive the run that made them, and what they can write."""

import functools
import inspect
import logging
import re
import sys
import types
from pathlib import Path

from recbole_freqd.compat.patches import Overlay, Patches


class _AnyText(logging.StreamHandler):
    """Writes what the stream's encoding lacks as escapes; it neither fails nor loses the line."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def logs_by_locale() -> bool:
    """Whether RecBole's `init_logger` opens its file in the encoding of the locale."""
    from recbole.utils.logger import init_logger

    return "FileHandler(logfilepath)" in inspect.getsource(init_logger)


def apply_log_encoding(patches: Patches) -> None:
    """RecBole's log files are UTF-8, and its console shows what it can."""
    from recbole.utils import logger

    handler = functools.partial(logging.FileHandler, encoding="utf-8", errors="backslashreplace")
    overlay = Overlay(logging, FileHandler=handler, StreamHandler=_AnyText)
    patches.set(logger, "logging", overlay)


def _from_init_logger(handler: logging.Handler, host: types.ModuleType) -> bool:
    """Whether RecBole's `init_logger` made this handler.

    It makes two. The file's carries RecBole's own filter class and a file name of the form
    log/<Model>/<Model>-<dataset>-<time>-<6 hex digits>.log; the console's a formatter that holds
    RecBole's own dict of colours: the same object, an equal one is not enough. Exact types,
    because pytest's handlers and many others are subclasses of these two.
    """
    if type(handler) is logging.FileHandler:
        path = Path(handler.baseFilename)
        model = re.escape(path.parent.name)
        return (
            any(type(f) is host.RemoveColorFilter for f in handler.filters)
            and path.parent.parent.name == "log"
            and re.fullmatch(rf"{model}-.*-[0-9a-f]{{6}}\.log", path.name) is not None
        )
    colors = getattr(handler.formatter, "log_colors", None)
    kinds = (logging.StreamHandler, _AnyText)
    return type(handler) in kinds and colors is host.log_colors_config


def fresh_log_handlers() -> None:
    """Take RecBole's handlers of an earlier run off the root logger and close their files.

    RecBole's `init_logger` uses `logging.basicConfig`, which does nothing if the root logger has
    handlers: without this, the second run of a process writes into the first one's file. Call it
    before each run. Handlers of others stay, and as long as there is one RecBole adds none of its
    own: such a process has no RecBole log file, before and after.
    """
    host = sys.modules.get("recbole.utils.logger")
    if host is None:  # never imported: no handler can be its own
        return
    _unwrap_console()
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if _from_init_logger(handler, host):
            root.removeHandler(handler)
            handler.close()


def _unwrap_console() -> None:
    """Undo what init_logger does at every call: it wraps stdout and stderr once more.

    Not by `colorama.deinit`: that puts back what was there at its last `init`, over whatever
    stream another program (a notebook, a test) has set since.
    """
    colorama = sys.modules["colorama.initialise"]
    for name in ("stdout", "stderr"):
        wrapped = getattr(colorama, f"wrapped_{name}")
        if wrapped is not None and getattr(sys, name) is wrapped:
            setattr(sys, name, getattr(colorama, f"orig_{name}"))


class _Brief(logging.Filter):
    """Lets warnings through, what we say ourselves, and a line for each epoch that is validated.

    Args:
        kind: Which of RecBole's lines on an epoch is that: ``evaluating`` or ``training``.
        silent: Loggers of ours that say what RecBole says at the start: config, data and model.
    """

    def __init__(self, kind: str, silent: tuple[str, ...]) -> None:
        super().__init__()
        self._line, self._silent = re.compile(rf"epoch \d+ {kind}"), silent

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        if record.name.startswith("recbole_freqd."):
            ours = record.name not in self._silent
            return ours and not str(record.msg).startswith("epoch %d losses")
        return self._line.search(str(record.msg)) is not None


def brief_console(kind: str, silent: tuple[str, ...] = ()) -> None:
    """Leaves a line per epoch of what RecBole's `init_logger` has on the console, not in its file.

    Args:
        kind: Which line that is: ``evaluating``, or ``training`` where nothing is validated.
        silent: Loggers of this package that say nothing there either.
    """
    host = sys.modules["recbole.utils.logger"]
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler) and _from_init_logger(handler, host):
            handler.addFilter(_Brief(kind, silent))
