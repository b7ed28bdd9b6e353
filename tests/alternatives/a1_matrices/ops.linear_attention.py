"""One product a token; all pairs at once; and the chunked form as a recursion on halves."""

import torch


def recurrent(q, k, v, *, state=None, scale=1.0):
    if state is None:
        state = torch.einsum("bhk,bhv->bhkv", 0 * k.sum(1), 0 * v.sum(1))
    answers = []
    for now_q, now_k, now_v in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        state = torch.baddbmm(
            state.flatten(0, 1), now_k.flatten(0, 1)[:, :, None], now_v.flatten(0, 1)[:, None]
        ).view_as(state)
        answers.append((state.mT @ now_q[..., None])[..., 0] * scale)
    return (torch.stack(answers, 1) if answers else torch.zeros_like(v)), state


def parallel(q, k, v, *, scale=1.0):
    time = torch.arange(q.shape[1])
    seen = (time[:, None] >= time).to(q.dtype)
    return scale * torch.einsum("ij,bihk,bjhk,bjhv->bihv", seen, q, k, v), torch.einsum("bthk,bthv->bhkv", k, v)


def chunked(q, k, v, *, state=None, scale=1.0, chunk=64):
    """Halve until a piece is a chunk; the second half asks the state that the first one leaves."""
    if state is None:
        state = v.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    if q.shape[1] <= chunk:
        out, added = parallel(q, k, v, scale=scale)
        return out + scale * torch.einsum("bthk,bhkv->bthv", q, state), state + added
    half = (q.shape[1] // chunk + 1) // 2 * chunk
    first, state = chunked(q[:, :half], k[:, :half], v[:, :half], state=state, scale=scale, chunk=chunk)
    second, state = chunked(q[:, half:], k[:, half:], v[:, half:], state=state, scale=scale, chunk=chunk)
    return torch.cat([first, second], 1), state
