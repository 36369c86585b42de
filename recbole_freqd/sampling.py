"""What losses draw beside masks: distinct ids, and noise for choices."""

import torch

from recbole_freqd.rng import RandomStream


def distinct(candidates: torch.Tensor, count: int, stream: RandomStream) -> torch.Tensor:
    """Different ones of the candidates, each set of them as likely as any other.

    The work goes with ``count``, however many candidates there are.

    Args:
        candidates: (n,), each once.
        count: How many.
        stream: Where they are drawn from.

    Returns:
        (min(count, n),); all, and nothing is drawn, where there are no more than asked for.
    """
    n, device = len(candidates), candidates.device
    if count >= n:
        return candidates
    generator = stream.on(device)
    if 4 * count > n:
        return candidates[torch.randperm(n, generator=generator, device=device)[:count]]
    places = torch.empty(0, dtype=torch.int64, device=device)
    while len(places) < count:  # no candidate is treated unlike another, so no set is either
        missing = count - len(places)
        more = torch.randint(n, (missing,), generator=generator, device=device)
        places = torch.unique(torch.cat([places, more]))
    return candidates[places]


def gumbel(like: torch.Tensor, stream: RandomStream) -> torch.Tensor:
    """Independent standard Gumbel numbers of shape, dtype and device of ``like``, all finite."""
    drawn = torch.empty_like(like).exponential_(generator=stream.on(like.device))
    return -drawn.clamp_(min=torch.finfo(like.dtype).tiny).log_()
