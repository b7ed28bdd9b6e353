"""Frames of q, k, v and gates without end, some easy to remember for ever and some as hard as a stream can be.

All regimes lie side by side in one batch, HEADS heads of each, so that one call serves all. q, k and v are drawn in
bfloat16, as the layers make them, the gates in float32.

    regime          gates and tokens
    after training  heads that forget at once and heads that hardly do; keys as a SiLU leaves them
    new layer       α = 0.999, β = 0.5: a layer's gates before training
    still video     the same 256 tokens in every frame, α within 0.001 of 1
    still, α = 1    the same, and nothing is ever forgotten
    one key         one key for all tokens, new values; α and β within 0.001 of 1
    α = 1           new tokens all the time, and nothing is ever forgotten
    remembered      new tokens in the first frame only, then one key for ever, α = 1: the first frame's traces must
                    last, and nothing renews them
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FRAME = 256  # tokens that come at a time
REGIMES = ("after training", "new layer", "still video", "still, α = 1", "one key", "α = 1", "remembered")
HEADS = 2  # of each regime


def own(regime: str) -> slice:
    """This regime's heads."""
    first = HEADS * REGIMES.index(regime)
    return slice(first, first + HEADS)


class Source:
    def __init__(self, K: int, V: int, device: str, seed: int = 0):
        self.K, self.V, self.device, self.heads = K, V, device, len(REGIMES) * HEADS
        self.generator = torch.Generator(device).manual_seed(seed)
        self.still, self.begun = self.drawn(), False
        self.rate = torch.linspace(16, 1, HEADS, device=device)  # exp(A_log) and time steps, as a layer starts with
        self.time_step = torch.linspace(0.1, 0.001, HEADS, device=device)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, device=self.device, generator=self.generator)

    def drawn(self) -> dict[str, Tensor]:
        """A frame's tokens, and the numbers a and b that its gates are made of."""
        gate = (1, FRAME, self.heads)
        q, k = (F.silu(self.normal(*gate, self.K)) for _ in range(2))
        return {"q": q, "k": k, "v": self.normal(*gate, self.V), "a": self.normal(*gate), "b": self.normal(*gate)}

    def frame(self) -> dict[str, Tensor]:
        """q, k [1, 256, H, K], v [1, 256, H, V], log_decay, beta [1, 256, H]; H = regimes · HEADS."""
        x = self.drawn()
        for name in x:
            for regime in ("still video", "still, α = 1"):
                x[name][:, :, own(regime)] = self.still[name][:, :, own(regime)]
        for regime in ("one key", "remembered"):
            if regime == "one key" or self.begun:
                x["k"][:, :, own(regime)] = self.still["k"][:, :1, own(regime)]
        self.begun = True

        log_decay = torch.zeros_like(x["a"])  # α = 1, where nothing else is said
        trained = x["a"][:, :, own("after training")] + self.time_step.expm1().log()
        log_decay[:, :, own("after training")] = -self.rate * F.softplus(trained)
        log_decay[:, :, own("new layer")] = -0.001
        for regime in ("still video", "one key"):
            log_decay[:, :, own(regime)] = -0.001 * x["a"][:, :, own(regime)].sigmoid()

        beta = torch.sigmoid(2 * x["b"])
        beta[:, :, own("new layer")] = 0.5
        beta[:, :, own("one key")] = 1 - 0.001 * x["b"][:, :, own("one key")].sigmoid()
        return {name: x[name].bfloat16() for name in ("q", "k", "v")} | {"log_decay": log_decay, "beta": beta}
