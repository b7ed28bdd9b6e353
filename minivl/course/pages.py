"""The words in a student's folder: how to begin, and a page a task. All that can be is read from the source."""

from .sources import Tree, place, shown
from .tasks import Assignment, Task, Variant


def readme(assignment: Assignment, variant: Variant | None) -> str:
    rows = "\n".join(
        f"| [{task.number}](tasks/{task.number}.md) | {task.title} | {task.points} | {task.hours:g} |"
        for task in assignment.tasks
    )
    another = f"\n**Your variant: {variant.name}.** {variant.says}\n" if variant else ""
    return f"""# {assignment.name}: {assignment.title}

{assignment.summary}
{another}
| task | | points | hours |
|---|---|---|---|
{rows}

## How to begin

With Python 3.11 to 3.13, in this folder:

```sh
python3 -m venv .venv
.venv/bin/pip install -r requirements.txt
.venv/bin/python self_check.py
.venv/bin/python -m pytest -k {assignment.tasks[0].number}
```

On Windows write `py` for `python3` and `.venv\\Scripts\\` for `.venv/bin/`. `self_check.py` takes half an hour and
tells whether you have what the tasks need.

## How to work

Each task's page has its formula, the file to edit, the test command and a hint. Functions to write say
`raise NotImplementedError("{assignment.name[0]}{assignment.tasks[0].number} …")`;
put your own lines in place of that one. Write helper functions and imports beside them as you like, in the same file.
Leave the signatures as they are. Functions that are given are given to the grader, too: a change of theirs counts
nothing, and each task is graded with right versions of all the others.

The tests ask a few questions, whose answers they know as numbers. The grader asks the same kinds of questions with
other numbers, in a process that sees neither these tests nor any answer.
{hand_in(assignment)}"""


def hand_in(assignment: Assignment) -> str:
    return f"""
## What to hand in

Only these files count:

{chr(10).join(f"- `{path}`" for path in handed_in(assignment))}

Your course says how: this folder as it is, or these files packed by `python -m minivl assignment pack` where MiniVL is
installed.
"""


def handed_in(assignment: Assignment) -> list[str]:
    """The files that hold a task's functions, and the student's own."""
    tree = assignment.reference()
    names = [name for task in assignment.tasks for name in (*task.functions, *task.helpers)]
    return list(dict.fromkeys(place(tree, name)[0] for name in names))


def task_page(assignment: Assignment, task: Task, tree: Tree, variant: Variant | None) -> str:
    """`tree` is the student's: signatures and docstrings as they stand there."""
    another = (
        f"\n**Your variant: {variant.name}.** {variant.says} Where a claim or the hint says otherwise, this counts.\n"
        if variant
        else ""
    )
    files = dict.fromkeys(place(tree, name)[0] for name in task.functions)
    code = "\n\n\n".join(shown(tree, name) for name in task.functions)
    formula = f"\n{task.formula}\n" if task.formula else ""
    helpers = f"\nHelpers that you may write, or leave: {listed(task.helpers)}.\n" if task.helpers else ""
    checks = "\n".join(f"| {check.claim} | {check.points} |" for check in task.checks)
    return f"""# {task.number} {task.title}

{task.points} points, about {task.hours:g} hours. In {listed(files)}. {task.learns}
{another}
## Formula
{formula}
```python
{code}
```
{helpers}{shapes(tree, files)}
## Checks

| claim | points |
|---|---|
{checks}

```sh
python -m pytest -k {task.number}
```

## Hint

{task.hint}
"""


def shapes(tree: Tree, files) -> str:
    """The glossaries of the files: code name, symbol, shape, dtype, range."""
    found = []
    for path in files:
        text = tree[path].split('"""')[1] if tree[path].startswith('"""') else ""
        lines = text.splitlines()
        start = next((i for i, line in enumerate(lines) if line.split()[:1] == ["code"]), None)
        if start is not None:
            found.append("\n".join(line[4:] for line in lines[start:]).rstrip())
    return "\n## Shapes\n\n```text\n" + "\n\n".join(found) + "\n```\n" if found else ""


def listed(names) -> str:
    return ", ".join(f"`{name}`" for name in names)
