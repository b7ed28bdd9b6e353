"""All assignments, by name."""

from .a1 import A1
from .a2 import A2
from .a3 import A3
from .a4 import A4
from .a5 import A5
from .a6 import A6
from .tasks import Assignment

ASSIGNMENTS: dict[str, Assignment] = {assignment.name: assignment for assignment in (A1, A2, A3, A4, A5, A6)}


def assignment_of(name: str) -> Assignment:
    found = ASSIGNMENTS.get(name.upper())
    if found is None:
        raise ValueError(f"there is no assignment {name!r}; there are {', '.join(ASSIGNMENTS)}")
    return found


def variant_of(assignment: Assignment, seed: int) -> int:
    """Which variant a seed stands for: 0 is the assignment as it is written."""
    if seed < 0:
        raise ValueError(f"--variant is {seed}; it should be a whole number of at least 0")
    if seed and not assignment.variants:
        raise ValueError(f"{assignment.name} has no variants; leave --variant away")
    return 1 + (seed - 1) % len(assignment.variants) if seed else 0
