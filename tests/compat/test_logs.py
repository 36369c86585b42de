"""logs: RecBole's log takes any name, whatever the console and the locale can write."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_freqd import compat
from recbole_freqd.compat import logs

ROOT = Path(compat.__file__).resolve().parents[2]
NAMES = ["książki", "电影", "📚", "\udcff", "plain"]


def console(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk", "utf-8"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_line_is_written_with_escapes_for_what_the_console_lacks(name, encoding):
    stream = console(encoding)
    handler = logs._AnyText(stream)
    handler.handle(logging.makeLogRecord({"msg": f"dataset {name}, 3 users"}))
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown.startswith("dataset ") and shown.endswith(", 3 users\n")
    try:
        name.encode(encoding)
    except UnicodeEncodeError:
        assert "\\" in shown
    else:
        assert name in shown


def test_a_stream_that_names_no_encoding_gets_the_text_as_it_is():
    stream = io.StringIO()
    logs._AnyText(stream).handle(logging.makeLogRecord({"msg": "电影"}))
    assert stream.getvalue() == "电影\n"


def test_recbole_by_itself_opens_its_log_in_the_encoding_of_the_locale(host):
    """The shim is needed as long as this holds."""
    host.unregister()
    assert logs.logs_by_locale()
    compat.install_shims()
    assert "log-encoding" in compat.shims_installed()


LOG = """
import sys
from recbole_freqd import compat
compat.install_shims()
import logging
from recbole.utils import init_logger

class Keys(dict):
    final_config_dict = {}

init_logger(Keys(model="BPR", dataset="toy", state=None))
logging.getLogger().info("dataset %s", "ksi\\u0105\\u017cki \\u7535\\u5f71")
ours = list(logging.getLogger().handlers)
compat.fresh_log_handlers()
print(len(ours), len(logging.getLogger().handlers))
"""


def test_in_a_process_without_utf_8_nothing_is_lost_and_no_traceback_printed(tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOG],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, **plain},
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [b"2", b"0"]
    assert b"Logging error" not in done.stderr and b"Traceback" not in done.stderr
    assert b"dataset ksi" in done.stderr
    [file] = tmp_path.glob("log/BPR/*.log")
    assert "dataset książki 电影" in file.read_text(encoding="utf-8")
