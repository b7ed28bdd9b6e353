"""A private copy of a module of ours with one edit in it: how the tests get an implementation that is surely wrong.

The edit is made in the source as it stands, so that a wrong version stays in step with the right one; minivl/course has
edits, too, and those that both need stand there.
"""

import functools
import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType

from minivl.course import sources


@dataclass(frozen=True)
class Edit(sources.Edit):
    """An edit of a function of minivl, by module and name: "ops.delta_rule.chunked"."""

    @property
    def module(self) -> str:
        """The longest beginning of `where` that is a module."""
        return next(name for name in (self.where.rsplit(".", n)[0] for n in (1, 2)) if find_module(name))

    def source(self) -> str:
        """The module's whole source, edited; text that does not stand there exactly once is an error."""
        path = f"minivl/{self.module.replace('.', '/')}.py"
        return sources.edited(sources.read((path,)), self)[path]


def known(number: str, name: str) -> Edit:
    """The edit of a mistake that the course knows: a task's number, and the mistake's name there."""
    from minivl.course.manifest import ASSIGNMENTS

    tasks = {task.number: task for assignment in ASSIGNMENTS.values() for task in assignment.tasks}
    (edit,) = next(mistake.edits for mistake in tasks[number].mistakes if mistake.name == name)
    return Edit(edit.where, edit.right, edit.wrong)


def find_module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"minivl.{name}")
    except ModuleNotFoundError:
        return None


def execute(module: ModuleType, source: str) -> ModuleType:
    """A new module of this source, with the relative imports of the old one. It is entered nowhere."""
    copy = ModuleType(module.__name__)
    copy.__package__, copy.__file__ = module.__package__, module.__file__
    exec(compile(source, f"{module.__file__} (edited)", "exec"), copy.__dict__)
    return copy


@functools.cache
def edited(edit: Edit, target: str) -> ModuleType:
    """The module `target` as it would be with this edit, which may lie in another module that it imports from."""
    source_module, module = find_module(edit.module), find_module(target)
    if source_module is module:
        return execute(module, edit.source())
    wrong = execute(source_module, edit.source())
    copy = execute(module, inspect.getsource(module))
    for name, value in vars(source_module).items():
        if not name.startswith("__") and vars(copy).get(name) is value:
            setattr(copy, name, getattr(wrong, name))
    return copy
