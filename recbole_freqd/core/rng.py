"""Our own random numbers, so that RecBole's streams stay what they are without us."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, Union

import numpy as np
import torch


def derived_seed(seed: int, *place: int) -> int:
    """A seed for one place (an epoch, a step, a process) of what begins with ``seed``.

    By NumPy's SeedSequence: the same in every process and version, and for different places as good
    as independent, which sums of small numbers are not.

    Args:
        seed: Any integer.
        place: Integers in [0, 2³²).

    Returns:
        In [0, 2⁶³).

    Example:
        >>> derived_seed(2020, 1, 0) == derived_seed(2020, 1, 0) != derived_seed(2020, 0, 1)
        True
    """
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=place)
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


class RandomStream:
    """A seeded source of random numbers on any device.

    A generator per device is made when first asked for, each from the same seed.

    Args:
        seed: Any integer.

    Example:
        >>> stream, same = RandomStream(1), RandomStream(1)
        >>> torch.equal(stream.on("cpu").get_state(), same.on("cpu").get_state())
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = self._start = int(seed)
        self._generators: dict[str, torch.Generator] = {}

    def restart(self, *place: int) -> None:
        """Begins anew, where ``seed`` and ``place`` say: the same in every process."""
        self._start = derived_seed(self.seed, *place)
        for generator in self._generators.values():
            generator.manual_seed(self._start)

    def on(self, device: Union[torch.device, str]) -> torch.Generator:
        """The generator for tensors on ``device``."""
        name = str(device)
        if name not in self._generators:
            self._generators[name] = torch.Generator(device=device).manual_seed(self._start)
        return self._generators[name]

    def bernoulli(
        self,
        shape: tuple[int, ...],
        probability: float,
        like: torch.Tensor,
        dtype: torch.dtype = torch.bool,
    ) -> torch.Tensor:
        """A mask of ``shape`` on the device of ``like``: 1 (True) with ``probability``, else 0.

        Of 16 random bits each, so the probability is met to 2^-17: torch draws 64 of them in the
        time of one float, and masks are what a step with dropout draws most of.
        """
        level = round(probability * 2**16) - 2**15
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None, generator=self.on(like.device))
        if not -(2**15) < level < 2**15:
            return torch.full(shape, level > 0, dtype=dtype, device=like.device)
        mask = torch.empty(shape, dtype=dtype, device=like.device)
        return torch.lt(words.view(torch.int16)[:count].view(shape), level, out=mask)

    def uniform_(self, tensor: torch.Tensor, bound: float) -> torch.Tensor:
        """Fills ``tensor`` in place from U(-bound, bound)."""
        with torch.no_grad():
            return tensor.uniform_(-bound, bound, generator=self.on(tensor.device))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """States by device name, for a checkpoint."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state_dict(self, states: dict[str, torch.Tensor]) -> None:
        """Puts the states of :meth:`state_dict` back, but for devices that are not here."""
        for name, state in states.items():
            if not name.startswith("cuda") or torch.cuda.is_available():
                self.on(name).set_state(state)


@contextmanager
def rng_untouched(*generators: torch.Generator) -> Iterator[None]:
    """Leaves the global random streams, and the given generators, as they were before.

    Covers ``random``, NumPy's legacy global state, torch on the CPU and on every CUDA device.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> with rng_untouched():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)))
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    own_states = [generator.get_state() for generator in generators]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            for generator, state in zip(generators, own_states):
                generator.set_state(state)


class Streams(TypedDict):
    """States of all random streams, see :func:`streams`; tensors and plain values."""

    python: list[Any]
    numpy: dict[str, Any]
    torch: torch.Tensor
    cuda: list[torch.Tensor]
    loaders: list[torch.Tensor]


def streams(generators: list[torch.Generator]) -> Streams:
    """States of all random streams that RecBole draws from, as tensors and plain values.

    Args:
        generators: The data loaders' own.
    """
    version, words, gauss = random.getstate()
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    return {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loaders": [generator.get_state() for generator in generators],
    }


def set_streams(states: Streams, generators: list[torch.Generator]) -> None:
    """Puts :func:`streams` back; those of CUDA only where there are as many devices."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    of_numpy = states["numpy"]
    key = of_numpy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, of_numpy["pos"], of_numpy["has_gauss"], of_numpy["gauss"]))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    for generator, state in zip(generators, states["loaders"]):
        generator.set_state(state.cpu())
