"""Whatever a caller can get wrong about an op's arguments is told in one sentence: the name, what it was, what it
should be. A row is a call that is right but for one argument, and the words that the sentence must hold."""

import pytest
import torch

from minivl.ops import delta_rule, gated_delta_rule, linear_attention, short_conv, sliding_window

B, T, H, K, V, D, W = 2, 5, 3, 4, 6, 8, 3


def zeros(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(*shape, dtype=dtype, device=device)


def rule_arguments(*names):
    every = {
        "q": zeros(B, T, H, K),
        "k": zeros(B, T, H, K),
        "v": zeros(B, T, H, V),
        "log_decay": zeros(B, T, H),
        "beta": zeros(B, T, H),
        "state": zeros(B, H, K, V),
    }
    return {name: every[name] for name in ("q", "k", "v", *names)}


def step_arguments():
    return {
        name: x if name == "state" else x[:, :1] for name, x in rule_arguments("log_decay", "beta", "state").items()
    }


def window_arguments():
    return {"q": zeros(B, T, 2 * H, K), "k": zeros(B, T, H, K), "v": zeros(B, T, H, K)}


def ring_arguments():
    return window_arguments() | {"memory": new_ring()}


def new_ring(**changes):
    sizes = {"batch": B, "slots": W + T - 1, "heads": H, "width": K, "window": W}
    return sliding_window.Ring(**sizes | {"dtype": torch.float32} | changes)


RULES = {
    "linear_attention.recurrent": (linear_attention.recurrent, lambda: rule_arguments("state")),
    "linear_attention.parallel": (linear_attention.parallel, rule_arguments),
    "linear_attention.chunked": (linear_attention.chunked, lambda: rule_arguments("state")),
    "delta_rule.recurrent": (delta_rule.recurrent, lambda: rule_arguments("beta", "state")),
    "delta_rule.chunked": (delta_rule.chunked, lambda: rule_arguments("beta", "state")),
    "gated.recurrent": (gated_delta_rule.recurrent, lambda: rule_arguments("log_decay", "beta", "state")),
    "gated.chunked": (gated_delta_rule.chunked, lambda: rule_arguments("log_decay", "beta", "state")),
    "gated.step": (gated_delta_rule.step, step_arguments),
    "gated.dispatched": (gated_delta_rule.gated_delta_rule, lambda: rule_arguments("log_decay", "beta", "state")),
}
WINDOWS = {
    "banded": (lambda **kw: sliding_window.banded(**kw, window=W), window_arguments),
    "blocked": (lambda **kw: sliding_window.blocked(**kw, window=W), window_arguments),
    "ring": (sliding_window.ring, ring_arguments),
}


CONVOLUTION = {
    "short_conv": (
        short_conv.short_conv,
        lambda: {
            "x": zeros(B, T, D),
            "weight": zeros(D, 1, 4),
            "tail": zeros(B, 3, D),
            "lengths": zeros(B, dtype=torch.int64),
        },
    ),
}
HOUSEHOLDER = {
    "householder": (delta_rule.householder, lambda: {"k": zeros(B, T, K), "beta": zeros(B, T)}),
    "householder_product": (delta_rule.householder_product, lambda: {"k": zeros(B, T, K), "beta": zeros(B, T)}),
}
OPS = RULES | WINDOWS | CONVOLUTION | HOUSEHOLDER
FIRST = {"short_conv": "x", "householder": "k", "householder_product": "k"}  # sets sizes and dtype; elsewhere q does
OPTIONAL = ("state", "tail", "lengths")
FREE_LAST_AXIS = {"v": RULES, "weight": CONVOLUTION}  # sizes that this argument sets for others


def refused(call, error, *words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__}, a special kind of {error.__name__}: {message}"
    assert "\n" not in message, f"the message has several lines: {message}"
    for word in words:
        assert word in message, f"the message does not say {word!r}: {message}"


def faults(op, name, x):
    """(what is wrong, the wrong value, the error, what the message must say it was, and what it should be)."""
    first = name == FIRST.get(op, "q")
    yield "a list", x.tolist(), TypeError, "list", "tensor"
    yield "a number", 3, TypeError, "int", "tensor"
    yield "an array", x.numpy(), TypeError, "ndarray", "tensor"
    if name not in OPTIONAL:
        yield "None", None, TypeError, "NoneType", "tensor"
    if name == "lengths":
        yield "floating-point", x.float(), TypeError, "torch.float32", "torch.int64"
    else:
        wanted = "float" if first else str(x.dtype)
        yield "integers", x.long(), TypeError, "torch.int64", wanted
        yield "booleans", x.bool(), TypeError, "torch.bool", wanted
        yield "complex", x.to(torch.complex64), TypeError, "torch.complex64", wanted
    if "householder" in op and first:
        return  # k may have any number of axes
    yield "an axis less", x[0], ValueError, str(list(x.shape[1:])), "it should be ["
    yield "an axis more", x[None], ValueError, str([1, *x.shape]), "it should be ["
    if first:
        return
    if name != "lengths":
        yield "too wide a dtype", x.double(), TypeError, "torch.float64", "torch.float32"
        yield "too narrow a dtype", x.half(), TypeError, "torch.float16", "torch.float32"
    for axis in range(x.ndim):
        if axis == x.ndim - 1 and op in FREE_LAST_AXIS.get(name, ()):
            continue
        for what, wrong in (("twice as long", torch.cat([x, x], axis)), ("broadcastable", x.narrow(axis, 0, 1))):
            if wrong.shape != x.shape and not (name == "k" and op in WINDOWS and axis == 2):  # see query heads, below
                yield f"axis {axis} {what}", wrong, ValueError, str(list(wrong.shape)), "it should be ["


def every_fault():
    for op, (_, arguments) in OPS.items():
        for name, x in arguments().items():
            for what, *fault in faults(op, name, x) if isinstance(x, torch.Tensor) else ():
                yield pytest.param(op, name, *fault, id=f"{op}-{name}-{what.replace(' ', '_')}")


@pytest.mark.parametrize("op", OPS)
def test_the_calls_themselves_are_right(op):
    run, arguments = OPS[op]
    run(**arguments())


@pytest.mark.parametrize(("op", "name", "wrong", "error", "was", "should_be"), list(every_fault()))
def test_a_wrong_tensor_is_named(op, name, wrong, error, was, should_be):
    run, arguments = OPS[op]
    refused(lambda: run(**arguments() | {name: wrong}), error, name, was, should_be)


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (op, name)
        for op, (_, arguments) in OPS.items()
        for name in arguments()
        if name not in (FIRST.get(op, "q"), "memory")
    ],
)
def test_a_tensor_on_another_device_is_named(op, name):
    run, arguments = OPS[op]
    given = arguments()
    given[name] = given[name].to("meta")
    refused(lambda: run(**given), ValueError, name, "meta", "cpu")


def test_a_ring_on_another_device_is_named():
    refused(
        lambda: sliding_window.ring(**window_arguments(), memory=new_ring(device="meta")),
        ValueError,
        "ring",
        "meta",
        "cpu",
    )


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "64", None])
@pytest.mark.parametrize("op", [op for op in RULES if op.endswith("chunked")])
def test_a_chunk_is_a_whole_number_of_at_least_one(op, wrong):
    run, arguments = OPS[op]
    refused(lambda: run(**arguments(), chunk=wrong), kind(wrong), "chunk", str(wrong), "at least 1")


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "64", None])
@pytest.mark.parametrize("op", [sliding_window.banded, sliding_window.blocked])
def test_a_window_is_a_whole_number_of_at_least_one(op, wrong):
    refused(lambda: op(**window_arguments(), window=wrong), kind(wrong), "window", str(wrong), "at least 1")


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "64", None])
@pytest.mark.parametrize("name", ["batch", "slots", "heads", "width", "window"])
def test_a_rings_sizes_are_whole_numbers_of_at_least_one(name, wrong):
    refused(lambda: new_ring(**{name: wrong}), kind(wrong), name, str(wrong), "at least 1")


def kind(wrong):
    return ValueError if type(wrong) is int else TypeError


def test_a_ring_needs_as_many_slots_as_its_window():
    refused(lambda: new_ring(slots=2, window=3), ValueError, "slots is 2", "at least", "3")


def test_a_write_longer_than_the_slack_is_refused_and_changes_nothing():
    memory, longest = new_ring(), T
    arguments = {name: torch.cat([x, x[:, :1]], 1) for name, x in window_arguments().items()}
    before = {name: x.clone() for name, x in memory.tensors().items()}
    refused(
        lambda: sliding_window.ring(**arguments, memory=memory),
        ValueError, f"a write of {longest + 1} tokens", f"room for {longest}", f"a ring of {W + T} slots",
    )  # fmt: skip
    assert all(torch.equal(x, before[name]) for name, x in memory.tensors().items())


@pytest.mark.parametrize("op", WINDOWS)
@pytest.mark.parametrize("heads", [H - 1, H + 1])
def test_query_heads_are_a_multiple_of_key_heads(op, heads):
    run, arguments = OPS[op]
    given = arguments() | {"q": zeros(B, T, heads, K)}
    refused(lambda: run(**given), ValueError, f"q has {heads} heads", f"k has {H}", "multiple")


@pytest.mark.parametrize("wrong", [None, "ring", 3, zeros(B, 4, H, K)], ids=["None", "a word", "a number", "a tensor"])
def test_the_memory_of_ring_is_a_ring(wrong):
    refused(
        lambda: sliding_window.ring(**window_arguments(), memory=wrong),
        TypeError,
        "memory",
        type(wrong).__name__,
        "Ring",
    )


@pytest.mark.parametrize("change", [{"batch": B + 1}, {"heads": H + 1}, {"width": K + 1}], ids=str)
def test_keys_that_do_not_fit_their_ring_are_refused(change):
    refused(
        lambda: sliding_window.ring(**window_arguments(), memory=new_ring(**change)), ValueError, "k has shape", "["
    )


def test_a_ring_of_another_dtype_is_refused():
    refused(
        lambda: sliding_window.ring(**window_arguments(), memory=new_ring(dtype=torch.float64)),
        TypeError, "k is torch.float32", "torch.float64",
    )  # fmt: skip


def test_step_takes_one_token():
    arguments = rule_arguments("log_decay", "beta", "state")
    refused(lambda: gated_delta_rule.step(**arguments), ValueError, "step takes one token", f"T = {T}", "should be 1")


def test_step_needs_a_state():
    refused(
        lambda: gated_delta_rule.step(**step_arguments() | {"state": None}), TypeError, "state", "NoneType", "tensor"
    )


@pytest.mark.parametrize("wrong", ["cuda", "", None, 0])
def test_an_unknown_backend_is_refused(wrong):
    arguments = rule_arguments("log_decay", "beta")
    refused(
        lambda: gated_delta_rule.gated_delta_rule(**arguments, backend=wrong),
        ValueError, "backend", repr(wrong), "auto, recurrent, chunked, triton",
    )  # fmt: skip


@pytest.mark.parametrize("op", RULES)
def test_a_refused_call_changes_none_of_its_inputs(op):
    run, arguments = OPS[op]
    given = {name: torch.full_like(x, 0.5) for name, x in arguments().items()}
    given["v"] = given["v"].double()
    refused(lambda: run(**given), TypeError, "v is torch.float64")
    assert all((x == 0.5).all() for x in given.values())


def test_a_ring_of_whole_numbers_is_refused():
    with pytest.raises(TypeError, match=r"dtype is torch.int64; it should be a floating-point dtype"):
        new_ring(dtype=torch.int64)


def test_a_convolution_without_taps_is_refused():
    with pytest.raises(ValueError, match=r"weight has shape \[4, 1, 0\]; it should have at least one tap"):
        short_conv.short_conv(torch.zeros(1, 3, 4), torch.zeros(4, 1, 0))
