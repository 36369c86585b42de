"""Training as one of several processes: what RecBole's trainers leave open between them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recbole_freqd import compat
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.runtime.finite import FiniteTrainer
from recbole_freqd.runtime.processes import Processes, as_in_one_process


class DistributedTrainer(FiniteTrainer):
    """A mixin over a RecBole trainer, for each of the processes that train one model together.

    RecBole's launch gives every process a share of each batch and wraps the model in torch's
    DistributedDataParallel, which averages gradients. Here: whatever else is trained goes into the
    same wrap (:meth:`average_also`), an error of one process is an error of all, and metrics are
    computed in the first process from the lists of all users, each once. RecBole averages the
    metrics of processes by batches and counts some users twice, to make the shares equal (its pull
    request #1872). Alone, nothing changes.

    Attributes:
        processes: All of them.
    """

    def __init__(self, config: Any, model: nn.Module) -> None:
        self.processes = Processes.of(config)
        self._trained_beside: list[nn.Parameter] = []
        if config["single_spec"]:
            super().__init__(config, model)  # type: ignore[call-arg]
            return
        if config["resume"]:
            raise ConfigError(
                f"resume: got true in {self.processes.size} processes; allowed: in one, since the "
                "state of the others is not kept. Leave it out, or use --nproc 1."
            )
        if config["worker"]:
            raise ConfigError(
                f"worker: got {config['worker']} in {self.processes.size} processes; allowed: 0. "
                "Loaders' own processes do not start beside others here."
            )
        if not self.processes.is_first:
            config["log_wandb"] = False
        with compat.one_of_many(self.processes.is_first, config["device"].type == "cpu"):
            super().__init__(config, model)  # type: ignore[call-arg]
        self.evaluator = _OfAllUsers(self.evaluator, self.processes)

    def fit(self, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        """As RecBole's.

        Raises:
            ConfigError: The loaders were not made for this process.
        """
        if not self.config["single_spec"]:
            share = getattr(train_data.sampler, "rank", None)
            if share != self.processes.rank:
                raise ConfigError(
                    f"Process {self.processes.rank} has the training data of process {share}: "
                    "loaders read from a file (dataloaders_save_path, or one that save_dataloaders "
                    "has left in checkpoint_dir) are of one process. Leave out both, and remove "
                    "the file."
                )
        return super().fit(train_data, *args, **kwargs)  # type: ignore[misc]

    def average_also(self, parameters: Sequence[nn.Parameter]) -> None:
        """Has gradients averaged that are not the model's, and starts from the same values.

        They share one DistributedDataParallel with the model's: of two, each process might send
        its gradients in another order.
        """
        if self.config["single_spec"] or not parameters:
            return
        self._trained_beside = list(parameters)
        self.distributed_model = DistributedDataParallel(_Trained(self.model, self._trained_beside))

    def sync_grad_loss(self) -> Any:
        """As RecBole's: every parameter has a gradient in every process, if only of zero."""
        loss = super().sync_grad_loss()  # type: ignore[misc]
        return loss + sum(torch.sum(parameter) * 0 for parameter in self._trained_beside)

    def _check_nan(self, loss: torch.Tensor) -> None:
        check = super()._check_nan
        self.processes.together(lambda: check(loss))

    def evaluate(self, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        """As RecBole's; the result is that of all users, in every process."""
        if not self.config["single_spec"] and eval_data:
            _without_repeats(eval_data.sampler)
        return super().evaluate(eval_data, *args, **kwargs)  # type: ignore[misc]

    def _map_reduce(self, result: Any, num_sample: int) -> Any:
        return result  # of all of them already


def whole(loader: Any) -> Any:
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


class _OfAllUsers:
    """RecBole's Evaluator, fed in the first process with what all of them have collected.

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
        return self.processes.agreed(lambda: self.evaluator.evaluate(collected))


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
