"""Sliding-window attention: exact softmax attention, over the last W tokens only.

A token sees itself and the W − 1 tokens before it: key j is visible to query i iff 0 ≤ i − j < W. So a stream needs
only the newest keys, and a ring of R slots holds them for ever: token number p goes to slot p mod R and overwrites
token p − R. Softmax does not care for the order of its keys, so the ring is attended to as it lies; each slot's
absolute position says whether a query may see it. Nothing moves, and nothing depends on how long the stream has run.

    out_i = Σ_j softmax_j(scale · q_i·k_j) v_j   over 0 ≤ i − j < W

    code        shape                dtype        range
    q           [B, T, Hq, K]        any float    Hq a multiple of Hkv: query head h reads key head h // (Hq // Hkv)
    k, v        [B, T, Hkv, K]       q's          rotated already, at absolute positions
    window      W                    int          ≥ 1, the token itself counted
    keys        [B, R, Hkv, K]       q's          the ring; values likewise
    positions   [B, R]               int64        the number of the token in each slot, −1 while empty
    seen        [B]                  int64        how many tokens were written: the next token's number
    lengths     [B]                  int64        0 … T: tokens of each row that are real; padding follows them
    out         [B, T, Hq, K]        q's
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks, fused


def visible(query: Tensor, key: Tensor, window: int) -> Tensor:
    """0 ≤ i − j < W, and slot j is not empty: [..., Tq], [..., Tk] → bool [..., Tq, Tk]."""
    distance = query[..., :, None] - key[..., None, :]
    return (distance >= 0) & (distance < window) & (key >= 0)[..., None, :]


def banded(q: Tensor, k: Tensor, v: Tensor, *, window: int, scale: float | None = None) -> Tensor:
    """Softmax over a band of the full T×T matrix, written out: the oracle. Costs T² in time and memory."""
    _check(q, k, v)
    checks.positive("window", window)
    like, dtype = q, checks.state_dtype(q.dtype)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[2] // k.shape[2]
    q, k, v = q.to(dtype), k.to(dtype).repeat_interleave(group, 2), v.to(dtype).repeat_interleave(group, 2)
    time = torch.arange(q.shape[1], device=q.device)
    scores = scale * torch.einsum("BiHK,BjHK->BHij", q, k)
    scores = scores.masked_fill(~visible(time, time, window), -torch.inf)
    return torch.einsum("BHij,BjHK->BiHK", scores.softmax(-1), v).to(like.dtype)


def blocked(q: Tensor, k: Tensor, v: Tensor, *, window: int, scale: float | None = None) -> Tensor:
    """banded's answer with W queries at a time, each block beside the keys it can see: costs T·W instead of T²."""
    _check(q, k, v)
    checks.positive("window", window)
    time = torch.arange(q.shape[1], device=q.device)
    if window_attention := fast(q, k, v):
        return window_attention(q, k, v, time.expand(len(q), -1), window=window, scale=scale)
    out = [torch.zeros_like(q[:, :0])]
    for start in range(0, q.shape[1], window):
        i, j = slice(start, start + window), slice(max(0, start - window + 1), start + window)
        out.append(attend(q[:, i], k[:, j], v[:, j], visible(time[i], time[j], window), scale))
    return torch.cat(out, dim=1)


def attend(q: Tensor, k: Tensor, v: Tensor, seen_by: Tensor, scale: float | None) -> Tensor:
    """Softmax attention where `seen_by` [Tq, Tk] or [B, Tq, Tk] is True, by PyTorch's fused kernel."""
    mask, group = seen_by if seen_by.ndim == 2 else seen_by[:, None], q.shape[2] // k.shape[2]
    if group > 1:  # no fused kernel of PyTorch's for GPUs takes grouped heads together with a mask
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=scale).transpose(1, 2)


def fast(q: Tensor, k: Tensor, v: Tensor) -> Callable | None:
    """The kernel that attends to a ring, where it takes these tensors; see ops/fused.py."""
    kernels = fused.kernels(q, k, v)
    return kernels.window_attention if kernels and q.shape[-1] in fused.WIDTHS else None


class Ring:
    """The last R keys and values of a stream, each with its absolute position. Its counter lives on the device."""

    def __init__(
        self,
        batch: int,
        slots: int,
        heads: int,
        width: int,
        *,
        window: int,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ):
        for name, number in {"batch": batch, "slots": slots, "heads": heads, "width": width, "window": window}.items():
            checks.positive(name, number)
        if not dtype.is_floating_point:
            raise TypeError(f"dtype is {dtype}; it should be a floating-point dtype")
        if slots < window:
            raise ValueError(f"slots is {slots}; it should be at least the window, {window}")
        self.window = window
        self.keys = torch.zeros(batch, slots, heads, width, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.positions = torch.full((batch, slots), -1, dtype=torch.int64, device=device)
        self.seen = torch.zeros(batch, dtype=torch.int64, device=device)

    @property
    def longest_write(self) -> int:
        """A write of T must leave the W − 1 tokens before its first one in place: T ≤ R − W + 1."""
        return self.keys.shape[1] - self.window + 1

    def tensors(self) -> dict[str, Tensor]:
        """All that the ring remembers, by name."""
        return {"keys": self.keys, "values": self.values, "positions": self.positions, "seen": self.seen}

    def write(
        self, k: Tensor, v: Tensor, lengths: Tensor | None = None, *, for_gradient: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Store T tokens; return their numbers [B, T] and the ring's keys and values to attend to.

        What is stored carries no gradient. `for_gradient` returns copies of the ring instead, with this call's own k
        and v in them: they get their gradients, and later writes don't change what the backward pass will read.
        """
        offset = torch.arange(k.shape[1], device=k.device)
        number = self.seen[:, None] + offset
        slot = number % self.keys.shape[1]
        stored_number = number
        if lengths is not None:  # padding writes back what its slot held
            real = offset < lengths[:, None]
            stored_number = torch.where(real, number, self.positions.gather(1, slot))
            k = torch.where(real[..., None, None], k, self.keys.gather(1, _like(slot, k)))
            v = torch.where(real[..., None, None], v, self.values.gather(1, _like(slot, v)))
        keys, values = self.keys, self.values
        if for_gradient:
            keys, values = keys.scatter(1, _like(slot, k), k), values.scatter(1, _like(slot, v), v)
        self.keys.scatter_(1, _like(slot, k), k.detach())
        self.values.scatter_(1, _like(slot, v), v.detach())
        self.positions.scatter_(1, slot, stored_number)
        self.seen += k.shape[1] if lengths is None else lengths
        return number, keys, values


def ring(
    q: Tensor, k: Tensor, v: Tensor, *, memory: Ring, scale: float | None = None, lengths: Tensor | None = None
) -> Tensor:
    """Write k and v into the ring, then attend to all of it. Any split of T over calls gives banded's answer."""
    _check(q, k, v)
    if not isinstance(memory, Ring):
        raise TypeError(f"memory is a {type(memory).__name__}; it should be a Ring")
    B, T = q.shape[:2]
    batch, slots, heads, width = memory.keys.shape
    checks.tensor("k", k, (batch, T, heads, width), memory.keys.dtype)
    checks.same_device(ring=memory.keys, q=q, k=k, v=v)
    if memory.longest_write < T:
        raise ValueError(
            f"a write of {T} tokens is too long for this ring: its {slots} slots and window of {memory.window} leave "
            f"room for {memory.longest_write} at a time; split it, or make a ring of {memory.window - 1 + T} slots"
        )
    if lengths is not None:
        checks.tensor("lengths", lengths, (B,), torch.int64)
        checks.same_device(q=q, lengths=lengths)
    for_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    number, keys, values = memory.write(k, v, lengths, for_gradient=for_gradient)
    if window_attention := fast(q, keys, values):
        return window_attention(q, keys, values, number, window=memory.window, scale=scale)
    seen_by = visible(number, memory.positions, memory.window)
    if lengths is not None:  # padding asks nothing and sees everything: its output means nothing, but is no 0 / 0
        padding = (number >= memory.seen[:, None])[..., None]
        q, seen_by = q.masked_fill(padding[..., None], 0), seen_by | padding
    return attend(q, keys, values, seen_by, scale)


def _like(slot: Tensor, x: Tensor) -> Tensor:
    """[B, T] → the same index for each head and channel of x [B, T, H, K]."""
    return slot[..., None, None].expand_as(x)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    checks.tensor("q", q, ("B", "T", "Hq", "K"))
    B, T, Hq, K = q.shape
    checks.tensor("k", k, (B, T, "Hkv", K), q.dtype)
    checks.tensor("v", v, tuple(k.shape), q.dtype)
    if k.shape[2] == 0 or Hq % k.shape[2]:
        raise ValueError(f"q has {Hq} heads and k has {k.shape[2]}; q's should be a multiple of k's")
    checks.same_device(q=q, k=k, v=v)
