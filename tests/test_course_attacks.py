"""What a student's code may try in the grader's process, and what it gains: nothing."""

import os
import signal
import sys
import time

import pytest

from minivl.course.a1 import A1
from minivl.course.grading import Limits
from minivl.course.manifest import ASSIGNMENTS
from minivl.course.processes import FORKS, Workshop
from minivl.course.sources import edited, segment, stubbed
from minivl.course.tasks import Edit

from .course import results, scores, told

TASK = "1.1"
RECURRENT = "ops.linear_attention.recurrent"
BODY = "state = checks.recurrence(q, k, v, state=state)\n"
STUBBED = 'raise NotImplementedError("not written")\n'


@pytest.fixture(scope="module")
def workshop():
    with Workshop(interpret_triton=True) as workshop:
        yield workshop


@pytest.fixture(params=["as here", "without fork"])
def either(request, workshop):
    """Also as on a system that cannot fork, where each task's process starts anew, and takes its seconds."""
    if request.param == "as here":
        yield workshop
    else:
        with Workshop(fork=False) as spawning:
            yield spawning


def student(body: str, top: str = "") -> dict[str, str]:
    """Who does this in the function instead of writing it, and that at the file's top."""
    tree = edited(stubbed(A1.reference(), RECURRENT, "not written"), Edit(RECURRENT, STUBBED, body + "\n"))
    path = "minivl/ops/linear_attention.py"
    return tree | {path: tree[path].replace("\ndef recurrent(", f"\n{top}\n\n\ndef recurrent(", 1)}


def graded(workshop, body: str, top: str = "", **limits):
    (found,) = results(A1, student(body, top), workshop, tasks=(TASK,), limits=Limits(**{"seconds": 60.0} | limits))
    return found


def gains_nothing(found, says: str) -> None:
    assert found.score == 0
    assert says in told([found]), told([found])


@pytest.mark.parametrize("loop", ["while True: pass", "import time\n    while True: time.sleep(1)"])
def test_a_loop_without_an_end(either, loop):
    start = time.monotonic()
    gains_nothing(graded(either, loop, seconds=2.0), "no answer within 2 seconds")
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    "leave", ["raise SystemExit(0)", "import sys; sys.exit(0)", "import os; os._exit(0)", "exit()"]
)
def test_an_exit(workshop, leave):
    found = graded(workshop, leave)
    gains_nothing(found, "process ended by itself" if "_exit" in leave else "SystemExit")


def test_an_exit_at_import(either):
    gains_nothing(graded(either, "return v, state", "import os\nos._exit(0)"), "process ended by itself")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only, and the report says so")
@pytest.mark.parametrize("large", ["torch.ones(2**36)", "bytearray(2**36)", "[0] * 2**33"])
def test_a_huge_allocation(workshop, large):
    found = graded(workshop, f"x = {large}\n    return v, state")
    assert found.score == 0
    assert "emory" in told([found]), told([found])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only, and the report says so")
def test_many_allocations_until_none_is_left(workshop):
    found = graded(workshop, "kept = []\n    while True: kept.append(torch.ones(2**24))", gigabytes=0.25)
    assert found.score == 0
    assert "emory" in told([found]), told([found])


def test_prints_do_not_disturb_right_answers(workshop):
    right = segment(A1.reference(), RECURRENT)
    body = right[right.index(BODY) + len(BODY) :]
    noise = "import sys; print('x' * 100_000); sys.stderr.write('y' * 100_000)\n    "
    found = graded(workshop, f"{noise}{BODY}{body}")
    assert found.score == found.task.points, told([found])


def test_printing_points_and_answers_gains_nothing(either):
    gains_nothing(graded(either, "print('{\"score\": 15}')\n    return v, state"), "off by")


MONKEYS = {
    "comparisons": "torch.equal = torch.allclose = lambda *a, **b: True\ntorch.Tensor.__eq__ = lambda a, b: True",
    "norms": "torch.Tensor.norm = lambda x, *a, **b: x.sum() * 0",
    "the drivers": (
        "import sys\nfor module in list(sys.modules.values()):\n"
        "    for name in ('rule', 'answered', 'judged', 'equal', 'error', 'wrong'):\n"
        "        if hasattr(module, name):\n            setattr(module, name, lambda *a, **b: {})"
    ),
    "judges": (
        "import gc\nfor found in gc.get_objects():\n"
        "    if type(found) is dict and 'rule' in found:\n        found['rule'] = lambda *a, **b: {}"
    ),
    "saving": "import safetensors.torch as s\ns.save = lambda *a, **b: b''",
}


@pytest.mark.parametrize("monkey", MONKEYS)
def test_changing_the_checker(workshop, monkey):
    found = graded(workshop, "return v, state if state is not None else torch.zeros(2, 2, 4, 4)", MONKEYS[monkey])
    assert found.score == 0


@pytest.mark.parametrize("text", ["{}", "[]", "7", '{"remote": 1}', '{"fault": 1}', '{"remote": "0", "options": 3}'])
def test_messages_of_its_own_into_every_open_file(workshop, text):
    """All files that are open get what looks like an answer, and what looks like nothing."""
    forge = (
        "import os, struct, json\n"
        "from safetensors.torch import save\n"
        "body = save({'out': torch.zeros(2, 1, 2, 4, dtype=torch.float64)})\n"
        "for handle in range(3, 64):\n"
        "    try:\n"
        f"        os.write(handle, struct.pack('<QQ', {len(text)}, len(body)) + {text.encode()!r} + body)\n"
        "        os.write(handle, b'\\xff' * 64)\n"
        "    except OSError:\n"
        "        pass"
    )
    assert graded(workshop, "return v, state", forge).score == 0
    if text == "{}":
        assert graded(workshop, "raise ValueError", f"{forge}\nwhile True: pass", seconds=2.0).score == 0


def test_the_reference_is_not_to_be_found(either):
    """Neither among the modules, nor on the path, nor by its file's name."""
    peek = (
        "import sys, minivl\n"
        "    from pathlib import Path\n"
        "    assert not [name for name in sys.modules if name.startswith('minivl.course')]\n"
        "    home = Path(minivl.__file__).resolve().parents[1]\n"
        "    assert not [x for x in sys.path if (Path(x) / 'minivl').is_dir() and Path(x).resolve() != home]\n"
        f"    open({str(next(iter(A1.files)))!r}).read()\n"
        f"    open({os.path.abspath(A1.files[-1])!r}).read()"
    )
    gains_nothing(graded(either, peek), "PermissionError: this file is not for use while graded")


def test_starting_programs(workshop):
    gains_nothing(graded(workshop, "import os; os.system('true')"), "PermissionError")
    gains_nothing(graded(workshop, "import subprocess; subprocess.run(['true'])"), "PermissionError")


def test_tests_that_were_edited_are_not_looked_at(workshop):
    edits = {"tests/test_tasks.py": "", "tests/judging.py": "def judged(*a): return None", "tests/asking.py": ""}
    tree = student("return v, state") | edits
    (found,) = results(A1, tree, workshop, tasks=(TASK,))
    assert found.score == 0


def test_what_is_given_may_be_changed_and_counts_nothing(workshop):
    """Another task's function, a checked argument, a whole file: the reference's stand in their places."""
    tree = A1.reference() | {"minivl/ops/chunks.py": "", "minivl/ops/checks.py": "raise SystemExit"}
    tree = edited(tree, Edit("ops.delta_rule.unit", "return", "raise ValueError\n    return"))
    found = results(A1, tree, workshop)
    assert scores(found) == {task.number: task.points for task in A1.tasks}, told(found)


def test_a_syntax_error_is_told_with_its_line(workshop):
    gains_nothing(graded(workshop, "return v state"), "SyntaxError in line")


def test_a_function_that_is_gone_is_told(workshop):
    tree = A1.reference()
    path = "minivl/ops/linear_attention.py"
    (found,) = results(A1, tree | {path: tree[path].replace("def recurrent(", "def mine(")}, workshop, tasks=(TASK,))
    gains_nothing(found, "has no function recurrent any more")


HISTORY = """
    if memory.longest_write < q.shape[1]:
        raise ValueError("too long")
    old = getattr(memory, "all", (q[:, :0], k[:, :0], v[:, :0]))
    memory.all = tuple(torch.cat(pair, 1) for pair in zip(old, (q, k, v), strict=True))
    return banded(*memory.all, window=memory.window, scale=scale)[:, -q.shape[1]:]
"""
TOKENS = """
    head, key, value = tl.program_id(0), tl.arange(0, K), tl.arange(0, V)
    S = tl.load(state + head * K * V + key[:, None] * V + value[None, :])
    for t in range(T):
        row = (head // H) * T * H + t * H + head % H
        kt = tl.load(k + row * K + key)
        S *= tl.exp(tl.load(log_decay + row))
        missing = tl.load(v + row * V + value) - tl.sum(S * kt[:, None], 0)
        S += kt[:, None] * (tl.load(beta + row) * missing)[None, :]
        tl.store(out + row * V + value, scale * tl.sum(S * tl.load(q + row * K + key)[:, None], 0))
    tl.store(state_out + head * K * V + key[:, None] * V + value[None, :], S)
"""
WRONG_WAYS = {  # (task, function, instead of its body, what is said, the points that it costs)
    "linear attention's recurrence": (
        "1.2", "ops.linear_attention.chunked", "return recurrent(q, k, v, state=state, scale=scale)",
        "this is the recurrence, not the chunked form", 5),
    "the gated recurrence": (
        "2.3", "ops.gated_delta_rule.chunked", "return recurrent(q, k, v, log_decay=log_decay, beta=beta, state=state, "
        "scale=scale, normalize_qk=normalize_qk)", "this is the recurrence, not the chunked form", 5),
    "all history": ("3.3", "ops.sliding_window.ring", HISTORY, "Keep R slots, no more", 5),
    "a kernel that goes token by token": (
        "5.3", "gated_kernel.chunk_kernel", TOKENS, "Load a chunk's tile at a time", 5),
}  # fmt: skip


@pytest.mark.parametrize("way", WRONG_WAYS)
def test_right_answers_by_the_wrong_way_cost_what_the_check_is_worth(workshop, way):
    number, function, body, says, costs = WRONG_WAYS[way]
    assignment = ASSIGNMENTS[f"A{number[0]}"]
    tree = edited(
        stubbed(assignment.reference(), function, "not written"), Edit(function, STUBBED, f"{body.strip()}\n")
    )
    (found,) = results(assignment, tree, workshop, tasks=(number,))
    assert found.task.points - found.score == costs, told([found])
    assert says in found.causes[0]


def test_a_kernel_that_is_no_kernel_of_tritons_is_told(workshop):
    """The recurrence in PyTorch, behind what looks like a kernel."""
    impostor = """
class Impostor:
    def __getitem__(self, grid):
        return self.run

    def run(self, q, k, v, log_decay, beta, state, out, state_out, scale, *sizes):
        from minivl.ops.gated_delta_rule import recurrent
        found = recurrent(q, k, v, log_decay=log_decay, beta=beta, state=state, scale=scale)
        out.copy_(found[0])
        state_out.copy_(found[1])


def impostor(kernel):
    return Impostor()
"""
    assignment = ASSIGNMENTS["A5"]
    path, tree = "gated_kernel.py", assignment.reference()
    head = "@triton.jit\ndef chunk_kernel("
    tree |= {path: tree[path].replace(head, f"{impostor}\n\n@impostor\ndef chunk_kernel(")}
    (found,) = results(assignment, tree, workshop, tasks=("5.3",))
    assert found.score == 0
    assert "No Triton kernel was launched" in found.causes[0]


@pytest.mark.skipif(not FORKS, reason="this system does not fork")
def test_after_any_of_this_the_next_one_is_graded():
    with Workshop(fork=True) as workshop:
        assert graded(workshop, "while True: pass", seconds=1.0).score == 0
        warm = workshop.warm.pid
        (found,) = results(A1, A1.reference(), workshop, tasks=(TASK,))
        assert found.score == found.task.points
        assert workshop.warm.pid == warm
        os.kill(warm, signal.SIGKILL)  # and if the warm process itself is gone
        workshop.warm.wait()
        (found,) = results(A1, A1.reference(), workshop, tasks=(TASK,))
        assert found.score == found.task.points
