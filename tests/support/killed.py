"""Runs that kill themselves: ``python tests/support/killed.py`` reads jobs from its standard input.

A job is a line of JSON: ``{"model", "dataset", "keys", "point"}``. Each is run in a process of its
own, forked from this one, which has only imported. A point is ``[name, call, when]``: the n-th call
of a function of :data:`POINTS` ends the process with SIGKILL, ``before`` or ``after`` it, or, where
it writes a file, with ``half`` of that there. ``["time", seconds, ""]`` ends it at any moment. The
answer is a line of JSON: ``{"status", "path", "calls", "seconds"}``; status is -9 after a kill.
"""

import collections
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback

import recbole_freqd

POINTS = {
    "teacher or student: step": "recbole.model.general_recommender.bpr:BPR.calculate_loss",
    "teacher or student: validation": "recbole.trainer.trainer:Trainer._valid_epoch",
    "teacher: copy": "recbole_freqd.teacher.recipe:shutil.copyfile",
    "teacher: facts": "recbole_freqd.teacher.recipe:write_json",
    "teacher: leftovers": "recbole_freqd.runtime.trainer:PartsTrainer.forget",
    "graph": "recbole_freqd.losses.freqd:cooccurrence_graph",
    "distillation: step": "recbole_freqd.trainer.distiller:Distiller.forward",
    "distillation: sidecar": "recbole_freqd.trainer.sidecar:Sidecar.write",
    "state": "recbole_freqd.runtime.state_file:StateFile.write",
    "end": "recbole_freqd.runtime.resume:Resume._progress",
    "any file": "torch:save",
    "any name": "os:replace",
}


def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)


def watch(name, call, when, calls):
    """Counts the calls of a function, and ends the process at one of them."""
    module, _, path = POINTS[name].partition(":")
    owner = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    plain = getattr(owner, attribute)

    def watched(*args, **kwargs):
        calls[name] += 1
        if calls[name] == call and when == "before":
            die()
        result = plain(*args, **kwargs)
        if calls[name] == call:
            if when == "half":
                os.truncate(args[1], os.path.getsize(args[1]) // 2)
            die()
        return result

    setattr(owner, attribute, watched)


def run(job):
    from recbole.config import Config

    from recbole_freqd.jobs import run as runs

    calls, start = collections.Counter(), time.perf_counter()
    kind, count, when = job["point"] or (None, 0, "")
    for name in POINTS:
        watch(name, count if name == kind else -1, when, calls)
    if kind == "time":
        threading.Timer(count, die).start()
    config = Config(job["model"], job["dataset"], config_dict=job["keys"])
    done = runs.run(config, test=False)
    seconds = time.perf_counter() - start
    return {"path": done.trainer.saved_model_file, "calls": calls, "seconds": seconds}


def main():
    # What every run would import, or read, for itself: most of its time.
    import torch._dynamo  # by torch's optimizers
    import torch.utils.tensorboard  # noqa: F401
    from recbole.model.general_recommender import BPR

    import recbole_freqd.jobs.run  # noqa: F401  # noqa: F401
    from recbole_freqd.config.models import keys_read_by

    keys_read_by(BPR)

    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    answer = run(json.loads(line))
                os.write(writing, json.dumps(answer).encode())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = json.loads(pipe.read() or "{}")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, **answer}), flush=True)


if __name__ == "__main__":
    sys.argv = ["killed.py"]
    recbole_freqd.register()
    main()
