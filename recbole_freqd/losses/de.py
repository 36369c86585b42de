"""DE: experts map student to teacher; a gate on the teacher's row chooses among them."""

from typing import Optional, Union, cast

import scipy.sparse as sp
import torch
from torch import nn
from typing_extensions import Unpack

from recbole_freqd.core.rankers import Ranker
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows, Features, as_rows, single_precision
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.losses.base import DistillationLoss, LossData
from recbole_freqd.losses.distances import mean_over_batch, row_distance
from recbole_freqd.losses.draws import gumbel
from recbole_freqd.losses.preference import PreferenceLoss, PreferenceOptions
from recbole_freqd.losses.projectors import uniform_parameter
from recbole_freqd.losses.registration import LOSSES

_COLDEST = 1e-10


def annealed(epoch: int, epochs: int) -> float:
    """The temperature of an epoch counted from 0: from 1 down to 1e-10, by equal ratios.

    Args:
        epoch: The current one.
        epochs: From this epoch on it stays at the lowest.

    Example:
        >>> annealed(0, 1000), annealed(5000, 1000)
        (1.0, 1e-10)
    """
    return max(_COLDEST, _COLDEST ** (epoch / epochs))


class ExpertMixture(nn.Module):
    """Mixes E maps f_e of one hidden layer; the teacher's row chooses the mixture.

    Args:
        student_dim: Width d_S of the student's rows.
        teacher_dim: Width d_T of the teacher's rows.
        stream: Draws initial weights and the noise of choices.
        experts: E.
        hidden: Hidden width of each expert; None is ⌊(d_S + d_T) / 2⌋.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        stream: RandomStream,
        experts: int,
        hidden: Optional[int] = None,
    ) -> None:
        super().__init__()
        hidden = hidden or (student_dim + teacher_dim) // 2
        self.stream = stream
        # The experts side by side, so that two products compute all of them.
        self.weight_in = uniform_parameter(stream, (student_dim, experts * hidden), student_dim)
        self.bias_in = uniform_parameter(stream, (experts * hidden,), student_dim)
        self.weight_out = uniform_parameter(stream, (experts * hidden, teacher_dim), hidden)
        self.bias_out = uniform_parameter(stream, (experts, teacher_dim), hidden)
        self.gate_weight = uniform_parameter(stream, (teacher_dim, experts), teacher_dim)
        self.gate_bias = uniform_parameter(stream, (experts,), teacher_dim)

    def gate(self, teacher: torch.Tensor) -> torch.Tensor:
        """(n, E), the log-probability of each expert, from teacher rows (n, d_T)."""
        return (teacher @ self.gate_weight + self.gate_bias).log_softmax(dim=1)

    def choose(self, gate: torch.Tensor, temperature: float) -> torch.Tensor:
        """(n, E), softmax((gate + G) / temperature), G Gumbel noise in train mode, else 0."""
        if self.training:
            gate = gate + gumbel(gate, self.stream)
        return (gate / temperature).softmax(dim=1)

    def forward(self, student: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """Σ_e z_e f_e(s), without making all experts' outputs (n, E, d_T).

        Args:
            student: (n, d_S).
            choice: z, (n, E).

        Returns:
            (n, d_T).
        """
        inner = torch.addmm(self.bias_in, student, self.weight_in).relu_()
        hidden = inner.shape[1] // choice.shape[1]
        mixed = inner.view(*choice.shape, hidden) * choice[:, :, None]
        return torch.addmm(choice @ self.bias_out, mixed.flatten(1), self.weight_out)


class ExpertLoss(DistillationLoss):
    """Base of DE and HTD: a mixture of experts per side, and its temperature."""

    temperature = 1.0

    def make_mixtures(
        self, student_dims: tuple[int, int], experts: int, hidden: Optional[int]
    ) -> None:
        """Makes the mixtures of both sides; call it in ``build``."""
        self.mixtures = nn.ModuleDict()
        teachers = self.teacher_user_emb, self.teacher_item_emb
        for side, width, teacher in zip(SIDES, student_dims, teachers):
            mixture = ExpertMixture(width, teacher.shape[1], self.stream, experts, hidden)
            self.mixtures[side] = mixture.to(torch.promote_types(teacher.dtype, torch.float32))
        # The CPU draws the start, so that it is the same on every device.
        self.to(self.teacher_user_emb.device)

    def start_epoch(self, epoch: int, student: Optional[Ranker] = None) -> None:
        self.temperature = annealed(epoch, self.options["temperature_epochs"])

    def mixture(self, side: str) -> ExpertMixture:
        """The experts and the gate of a side."""
        return cast(ExpertMixture, self.mixtures[side])

    def rows(
        self, side: str, student: FeatureRows, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Student (b, d_S) and teacher (b, d_T) rows of ids (b,), in the dtype of the experts."""
        table = self.teacher_user_emb if side == "user" else self.teacher_item_emb
        dtype = self.mixture(side).gate_bias.dtype
        return student.of(side, ids).to(dtype), table.index_select(0, ids).to(dtype)

    def errors(self, side: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """‖t - Σ_e z_e f_e(s)‖² of each row, (b,), with choices drawn anew."""
        mixture = self.mixture(side)
        choice = mixture.choose(mixture.gate(teacher), self.temperature)
        return row_distance(mixture(student, choice), teacher, "squared")


class DEOptions(PreferenceOptions, total=False):
    """The keywords of :class:`DELoss`; see its docstring."""

    beta: float
    experts: int
    hidden: Optional[int]
    temperature_epochs: int
    weight_decay: float


@LOSSES.register("DE")
class DELoss(PreferenceLoss, ExpertLoss):
    """Distillation Experts: the teacher's row chooses the expert that has to make it.

    For an entity with teacher row t (d_T) and student row s (d_S), E experts f_e (one hidden layer
    each) and a gate a = softmax(V t + c), per side, with G_e ~ Gumbel(0, 1) drawn anew each time
    and τ the temperature of the epoch,

        z = softmax((log a + G) / τ),    D(X) = mean_{x ∈ X} ‖t_x - Σ_e z_e f_e(s_x)‖²,
        L = D(users) + ½ [D(positive items) + D(negative items)]

    over distinct ids; without negatives D(users) + D(items). τ falls from 1 to 1e-10 in
    ``temperature_epochs`` epochs by equal ratios. In eval mode G = 0.

    A batch of n entities costs O(n E h (d_S + d_T)), h the hidden width, and memory for n x E h.

    Args and errors are those of :class:`DistillationLoss`; the options:
        beta: weight, applied by the trainer. experts: E; with 1 the gate has nothing to choose.
        hidden: h, null: ⌊(d_S + d_T) / 2⌋. temperature_epochs: see above; early stopping and
        ``epochs`` do not change it. weight_decay: of experts and gates.
        preference_*: see :class:`PreferenceLoss`.

    Weight: the public code adds a sum over distinct entities to a base loss that is a sum over B
    rows; here both are means, so beta is its lambda times |distinct entities| / B, a bit less than
    lambda (.01 in the paper's code with E = 30, .005 to .5 later).

    Source: Kang, Hwang, Kweon & Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender
        System", CIKM 2020.
    Deviations from the public code: means for sums; log-softmax for log(a + 1e-10); h not halved
        where d_S = d_T; the temperature of an epoch is that of its number, not of the one before;
        no weight decay of experts and gates by default (there, the student's); 5 experts by
        default for the cost (as later public configs for Gowalla and Yelp).

    Example, of a config::

        trainer: DE
        teacher: {checkpoint: saved/BPR-teacher.pth}
        de_beta: 0.05
        de_experts: 5
    """

    method = "DE"
    prefix = "de"

    def __init__(self, *data: Unpack[LossData], **options: Unpack[DEOptions]) -> None:
        super().__init__(*data, **options)

    def build(self, user_items: sp.csr_array, student_dims: tuple[int, int]) -> None:
        self.make_mixtures(student_dims, self.options["experts"], self.options["hidden"])

    def forward(
        self,
        student_features: Union[Features, FeatureRows],
        user_ids: torch.Tensor,
        positive_item_ids: torch.Tensor,
        negative_item_ids: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        student = as_rows(student_features)
        with single_precision(user_ids.device):
            value = mean_over_batch(
                lambda side, ids: self.errors(side, *self.rows(side, student, ids)),
                user_ids,
                positive_item_ids,
                negative_item_ids,
            )
        return self.with_preference(value, student, user_ids)

    def project(self, side: str, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        mixture, table = self.mixture(side), (self.teacher_user_emb, self.teacher_item_emb)
        dtype = mixture.gate_bias.dtype
        gate = mixture.gate(table[SIDES.index(side)].index_select(0, ids).to(dtype))
        return mixture(rows.to(dtype), mixture.choose(gate, self.temperature))
