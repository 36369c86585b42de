"""What two processes do for tests/runtime/test_distributed.py; everything they saw goes back to the test."""

import os
import signal
from contextlib import contextmanager

import torch
import torch.distributed as dist

from recbole_freqd.compat import Patches
from recbole_freqd.core.errors import CheckpointError, FreqDError
from recbole_freqd.core.rows import is_mapped
from recbole_freqd.graph import adjacency
from recbole_freqd.runtime.processes import Processes

BROKEN_STEP = 2


def watched(patches, owner, name, note):
    """Calls ``note(result, *args)`` after every call of a function."""
    plain = getattr(owner, name)

    def watching(*args, **kwargs):
        result = plain(*args, **kwargs)
        note(result, *args)
        return result

    patches.set(owner, name, watching)


@contextmanager
def notes():
    """While open, what is made once, drawn and differentiated is written down."""
    from recbole_freqd.core import rng
    from recbole_freqd.losses import freqd
    from recbole_freqd.teacher import recipe
    from recbole_freqd.trainer.fold import Distillation

    seen = {"graphs": 0, "trained": 0, "extracted": 0, "epoch_masks": [], "step_masks": []}
    patches = Patches()

    def count(name):
        return lambda *_: seen.update({name: seen[name] + 1})

    def local_gradients(loss, part, *_):
        trainer = part.trainer
        if "local" not in seen:
            every = [*trainer.model.parameters(), *trainer.distiller.parameters()]
            first = loss[0] if isinstance(loss, tuple) else loss
            found = torch.autograd.grad(first, every, retain_graph=True, allow_unused=True)
            seen["local"] = [torch.zeros_like(p) if g is None else g for p, g in zip(every, found)]

            def taken(*_):
                seen.setdefault("averaged", [parameter.grad.clone() for parameter in every])

            trainer.optimizer.register_step_pre_hook(taken)

    watched(patches, freqd, "cooccurrence_graph", count("graphs"))
    watched(patches, recipe, "_train", count("trained"))
    watched(patches, recipe, "features_of", count("extracted"))
    watched(patches, Distillation, "add", local_gradients)
    watched(
        patches, adjacency.EntityGraph, "dropped",
        lambda made, *_: seen["epoch_masks"].append(made.col.clone()),
    )  # fmt: skip
    watched(
        patches, rng.RandomStream, "bernoulli",
        lambda mask, *_: seen["step_masks"].append(mask.clone()),
    )  # fmt: skip
    try:
        yield seen
    finally:
        patches.undo()


def trained(model, keys, launched, broken=None):
    """One run; what each process knows in the end."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.trainer.fold import Distillation

    config = make_config(model, "tiny", None, {**keys, **launched})
    patches, rank = Patches(), Processes.of(config).rank
    if broken is not None:
        watched(patches, Distillation, "begin_fit", lambda _, part, *__: broken(part.trainer))
    with notes() as seen:
        try:
            run = runs.run(config)
        except FreqDError as error:
            if broken is None:
                raise
            return {"error": (type(error).__name__, str(error)), "rank": rank}
        finally:
            patches.undo()
    distiller = run.trainer.distiller
    seen.update(
        rank=rank,
        student=dict(run.trainer.model.state_dict()),
        own=dict(distiller.state_dict()),
        buffers=dict(distiller.named_buffers()),
        mapped=is_mapped(run.trainer.teacher.features[0]),
        checkpoint=run.trainer.saved_model_file,
        valid=run.best_valid_result,
        test=run.test_result,
        teacher=runs.evaluate_teacher(run, 2)[1][0],
    )
    return seen


def nothing_to_distil(trainer):
    """No projector is in the loss of process 1."""
    if trainer.processes.rank == 1:
        trainer.distiller.forward = lambda features, interaction: {"FreqD": torch.zeros(())}


def bad_number(trainer):
    """The loss of process 1 is NaN in a step."""
    plain, calls = trainer.model.calculate_loss, []

    def calculate_loss(interaction):
        calls.append(1)
        bad = trainer.processes.rank == 1 and len(calls) == BROKEN_STEP
        return plain(interaction) * (float("nan") if bad else 1.0)

    trainer.model.calculate_loss = calculate_loss


def full_disk(trainer):
    """Process 0 cannot write the checkpoint."""

    def _write(path, save):
        raise CheckpointError("no space left on device")

    trainer._write = _write


BROKEN = {"nothing": nothing_to_distil, "nan": bad_number, "disk": full_disk}


def jobs(wanted, file, launched):
    """Runs ``{name: (model, keys, broken)}`` in turn, and writes what all saw of each, by rank."""
    from recbole_freqd.trainer.register import register

    register()
    found = {}
    for name, (model, keys, broken) in wanted.items():
        mine = trained(model, keys, launched, BROKEN.get(broken))
        found[name] = all_of_them(launched).gathered(mine)
    if launched["local_rank"] == 0:
        torch.save(found, file)


def every(models, launched):
    """Trains ``{model: keys}``; which of them do not end with the same bits in both processes."""
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.core.files import fingerprint
    from recbole_freqd.jobs import run as runs

    other = []
    for model, keys in models.items():
        run = runs.run(make_config(model, "subset", None, {**keys, **launched}))
        trained = [
            *run.model.parameters(),
            *run.model.buffers(),
            *run.trainer.distiller.parameters(),
        ]
        bits = fingerprint(*(values.detach().cpu().numpy() for values in trained))
        if len(set(all_of_them(launched).gathered(bits))) > 1:
            other.append(model)
    return other


def all_of_them(launched):
    return Processes(launched["local_rank"], launched["local_rank"], 2, 2)


def much(launched):
    """More than a pipe holds."""
    return {f"metric@{k}": [0.5] * 100 for k in range(2000)}


def one_dies(launched):
    """Process 1 is killed while process 0 waits for it."""
    dist.init_process_group(
        "gloo", init_method=f"tcp://localhost:{launched['port']}", world_size=2,
        rank=launched["local_rank"],
    )  # fmt: skip
    processes = all_of_them(launched)
    processes.run_in_all(lambda: None)
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.run_in_all(lambda: None)
