"""Autoencoders and diffusion models: a user is encoded, an item is a row of the last layer."""

import contextlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import user_blocks
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import ADAPTERS, Biases, FeatureAdapter, adapts
from recbole_freqd.features.scores import score_users
from recbole_freqd.features.warm import TABLES, Target, fill_bias, fill_rows


class _Enough(Exception):
    """What was to be read has been read."""


class LastLayer(FeatureAdapter):
    """The user is what the last linear layer reads, the item that layer's weights.

    A student's users are encoded as in evaluation, without dropout or noise: these are the features
    that it will rank with, and no random number is drawn for them. The layer itself is not run, so
    that no scores (b, n_items) are made; what the model reads of the catalogue is what it reads in
    its own loss, here for the batch's users and their neighbours.

    Args:
        part: The submodule whose last linear layer makes the scores.
        *capacity: RecBole's keys that set the width of that layer's input.
    """

    student = "input of the last layer for the user, that layer's weights for the item"
    warm = "a user is what a network makes of the interactions, not a row of a table"

    def __init__(self, part: str, *capacity: str) -> None:
        self.part, self.capacity = part, capacity

    def rows(self, model: Any) -> FeatureRows:
        layer = self._layer(model)
        return FeatureRows(
            lambda ids: self._encode(model, layer, ids),
            lambda ids: layer.weight.index_select(0, ids),
        )

    def biases(self, model: Any) -> Biases:
        return None, self._layer(model).bias

    def calls(self, model: Any) -> int:
        """How often the last layer is run for one score."""
        return 1

    def _layer(self, model: Any) -> nn.Linear:
        modules = model.get_submodule(self.part).modules()
        return [module for module in modules if isinstance(module, nn.Linear)][-1]

    def _encode(self, model: Any, layer: nn.Linear, users: torch.Tensor) -> torch.Tensor:
        read: list[torch.Tensor] = []

        def stop_at_the_last(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            read.append(inputs[0])
            if len(read) == self.calls(model):
                raise _Enough

        hook = layer.register_forward_pre_hook(stop_at_the_last)
        try:
            with contextlib.suppress(_Enough):
                score_users(model, users)
        finally:
            hook.remove()
        return read[-1]


@adapts("CDAE")
class CDAEUsers(LastLayer):
    """CDAE: one hidden layer, to which every user adds a row of a table."""

    warm = TABLES
    warm_biases = (False, True)

    def __init__(self) -> None:
        super().__init__("out_layer", "embedding_size")

    def warm_by(self, model: Any) -> str:
        if isinstance(model.o_act, nn.ReLU):
            return "with out_activation: relu all scores below 0 are tied"
        return self.warm

    def start(self, model: Any, target: Target) -> int:
        """Users (u - c) s, within the range of the activation; items v / s and a bias c·v make up.

        The user's row is what that takes before the activation, less what the history adds.
        """
        wanted, shift, scale = _within(model.h_act, target.user_emb, target.user_mask)
        items = target.item_emb / scale
        fill_rows(model.out_layer.weight, items, target.item_mask)
        bias = target.item_emb @ shift
        if target.item_bias is not None:
            bias = bias + target.item_bias
        fill_bias(model.out_layer.bias, bias, target.item_mask)
        width = wanted.shape[1]
        for ids in user_blocks(model.n_users, model.n_items, model.device):
            wanted[ids] -= model.h_item(model.get_rating_matrix(ids))[:, :width]
        fill_rows(model.h_user.weight, wanted, target.user_mask)
        return 0


def _within(
    activation: nn.Module, users: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What an activation turns into (u - c) s, and c and s (d,), so that no unit is saturated."""
    low, high = users[mask].amin(dim=0), users[mask].amax(dim=0)
    span = torch.where(high > low, high - low, 1.0)
    if isinstance(activation, nn.ReLU):
        shift, scale = low - 0.1 * span, torch.ones_like(span)
        return (users - shift) * scale, shift, scale
    if isinstance(activation, nn.Tanh):  # from -.8 to .8
        shift, scale = (low + high) / 2, 1.6 / span
        return ((users - shift) * scale).clamp(-0.9, 0.9).atanh(), shift, scale
    shift, scale = low - 0.125 * span, 0.8 / span  # a sigmoid, from .1 to .9
    return ((users - shift) * scale).clamp(0.05, 0.95).logit(), shift, scale


ADAPTERS.register("MultiDAE")(LastLayer("decoder", "mlp_hidden_size"))
ADAPTERS.register("MultiVAE")(LastLayer("decoder", "mlp_hidden_size"))


@adapts("RaCT")
class RaCTEncoder(LastLayer):
    """RaCT: as MultiVAE; trained in stages, each a run of its own."""

    note = "no validation while it pretrains; keeps the model of every `save_step` epochs"

    def __init__(self) -> None:
        super().__init__("decoder", "mlp_hidden_size")


ADAPTERS.register("RecVAE")(LastLayer("decoder", "latent_dimension"))


@adapts("DiffRec")
class DiffRecDenoiser(LastLayer):
    """DiffRec: the last step of the denoising, whose prediction *is* the score for ``x0``."""

    note = "exact for `mean_type: x0`"
    random_in_eval = True  # with sampling_steps or sampling_noise
    pairs_by = "rows"
    reads_histories = True

    def __init__(self) -> None:
        super().__init__("mlp", "dims_dnn")

    def exact(self, model: Any) -> bool:
        return model.mean_type.name == "START_X"

    def calls(self, model: Any) -> int:
        return model.steps


@adapts("LDiffRec")
class LDiffRecDecoder(LastLayer):
    """LDiffRec: the decoder of the denoised code; one decoder for all items only."""

    note = "exact, and a student, for `n_cate: 1`"
    random_in_eval = True
    pairs_by = "rows"
    reads_histories = True

    def __init__(self) -> None:
        super().__init__("autoencoder.decoder", "in_dims")

    def exact(self, model: Any) -> bool:
        return model.n_cate == 1

    def rows(self, model: Any) -> FeatureRows:
        if model.n_cate != 1:
            raise ConfigError(
                f"n_cate: got {model.n_cate}; allowed for LDiffRec as a student: 1, since each "
                "category has a decoder of its own. Change n_cate, or take DiffRec."
            )
        return super().rows(model)


@adapts("MacridVAE")
class MacridVAEFacets(FeatureAdapter):
    """MacridVAE: the user's facets side by side, and the normalised item; log Σ_k is no product."""

    student = "means of the user's facets side by side, normalised `item_embedding`"
    warm = LastLayer.warm
    capacity = ("embedding_size", "kfac")
    random_in_eval = True  # its gumbel noise is drawn and then multiplied by zero
    pairs_by = "rows"
    reads_histories = True

    def exact(self, model: Any) -> bool:
        return False

    def rows(self, model: Any) -> FeatureRows:
        return FeatureRows(
            lambda ids: torch.cat(model.forward(model.get_rating_matrix(ids))[1], dim=1),
            lambda ids: F.normalize(model.item_embedding.weight.index_select(0, ids), dim=1),
        )
