"""Trains as one of several processes, and adds what RecBole's trainers leave open."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recbole_freqd import compat
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.runtime.parts import Fit, Part
from recbole_freqd.runtime.processes import Processes, as_in_one_process


class SeveralProcesses(Part):
    """Makes several processes train one model; changes nothing for a single one.

    RecBole's launch gives every process a share of each batch and wraps the model in torch's
    DistributedDataParallel, which averages gradients. Here: whatever else is trained goes into the
    same wrap, and metrics are computed in the first process from the lists of all users, each once.
    RecBole averages the metrics of processes by batches and counts some users twice, to make the
    shares equal (its pull request #1872). That an error of one process is an error of all is the
    business of the trainer itself.
    """

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Makes RecBole's trainer for one of many, and gives it an evaluator of all users.

        Raises:
            ConfigError: The config asks for what several processes cannot do.
        """
        config, processes = self.trainer.config, self.trainer.processes
        if config["single_spec"]:
            yield
            return
        _check(config, processes)
        if not processes.is_first:
            config["log_wandb"] = False
        with compat.one_of_many(processes.is_first, config["device"].type == "cpu"):
            yield
        self.trainer.evaluator = OfAllUsers(self.trainer.evaluator, processes)

    def begin_fit(self, fit: Fit) -> None:
        """Raises ConfigError where the loaders were not made for this process."""
        if self.trainer.config["single_spec"]:
            return
        rank, share = self.trainer.processes.rank, getattr(fit.train_data.sampler, "rank", None)
        if share != rank:
            raise ConfigError(
                f"Process {rank} has the training data of process {share}: loaders read from a "
                "file (dataloaders_save_path, or one that save_dataloaders has left in "
                "checkpoint_dir) belong to one process. Leave out both, and remove the file."
            )

    @contextmanager
    def fitting(self, fit: Fit) -> Iterator[None]:
        """Averages the gradients of what is trained beside the model, too, from equal values.

        Both share one DistributedDataParallel: of two, each process might send its gradients in
        another order.
        """
        trainer, beside = self.trainer, self.trainer.parameters_beside()
        if not trainer.config["single_spec"] and beside:
            wrapped = getattr(trainer.distributed_model, "module", None)
            if not isinstance(wrapped, _Trained):
                both = _Trained(trainer.model, beside)
                trainer.distributed_model = DistributedDataParallel(both)
        yield

    def begin_evaluation(self, loader: Any) -> None:
        """Deals each user out once."""
        if not self.trainer.config["single_spec"]:
            _without_repeats(loader.sampler)

    @contextmanager
    def saving(self, path: str) -> Iterator[None]:
        """Shows RecBole the Config that it can build the model from again, alone."""
        config = self.trainer.config
        self.trainer.config = as_in_one_process(config)
        try:
            yield
        finally:
            self.trainer.config = config


def _check(config: Any, processes: Processes) -> None:
    """Raises ConfigError for keys that are for one process."""
    if config["resume"]:
        raise ConfigError(
            f"resume: got true in {processes.size} processes; allowed: in one, since the "
            "state of the others is not kept. Leave it out, or use --nproc 1."
        )
    if config["worker"]:
        raise ConfigError(
            f"worker: got {config['worker']} in {processes.size} processes; allowed: 0. "
            "Loaders' own processes do not start beside others here."
        )


def full_eval_loader(loader: Any) -> Any:
    """A loader for evaluation that gives all users, and not only the share of this process."""
    if not loader or loader.config["single_spec"]:
        return loader
    return type(loader)(as_in_one_process(loader.config), loader._dataset, loader._sampler)


class _Trained(nn.Module):
    """All that is trained, for DistributedDataParallel to look at; RecBole calls it for that."""

    def __init__(self, model: nn.Module, beside: list[nn.Parameter]) -> None:
        super().__init__()
        self.model, self.beside = model, nn.ParameterList(beside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class OfAllUsers:
    """RecBole's Evaluator, which gets the results of all processes in the first one.

    Args:
        evaluator: RecBole's.
        processes: All of them.
    """

    _ROWS = ("rec.items", "rec.topk", "rec.meanrank", "rec.score", "data.label")

    def __init__(self, evaluator: Any, processes: Processes) -> None:
        self.evaluator, self.processes = evaluator, processes

    def evaluate(self, collected: Any) -> Any:
        """The metrics of all users or rows, the same in all processes."""
        own = {name: collected.get(name) for name in self._ROWS if name in collected}
        parts = self.processes.gathered(own)
        for name in own if parts else ():
            collected.set(name, torch.cat([part[name] for part in parts]))
        return self.processes.from_first(lambda: self.evaluator.evaluate(collected))


def _without_repeats(sampler: Any) -> None:
    """A DistributedSampler repeats what comes first until all shares are equal: no more.

    Raises:
        ConfigError: Some process would have nothing to evaluate.
    """
    count = len(sampler.dataset)
    if count < sampler.num_replicas:
        raise ConfigError(
            f"There are {count} users to evaluate and {sampler.num_replicas} processes; allowed: "
            "at least one each. Use a smaller --nproc."
        )
    sampler.total_size = count
    sampler.num_samples = len(range(sampler.rank, count, sampler.num_replicas))
