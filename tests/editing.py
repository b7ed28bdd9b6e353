"""A private copy of a module of ours with one edit in it: how the tests get an implementation that is surely wrong.

The edit is made in the source as it stands, so that a wrong version stays in step with the right one. The text that
it replaces must occur exactly once in the function it names; otherwise the edit is stale, and that is an error.
"""

import functools
import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Edit:
    where: str  # a function of minivl, by module and name: "ops.delta_rule.chunked"
    right: str
    wrong: str

    @property
    def module(self) -> str:
        """The longest beginning of `where` that is a module."""
        return next(name for name in (self.where.rsplit(".", n)[0] for n in (1, 2)) if find_module(name))

    def source(self) -> str:
        """The module's whole source, edited."""
        module = find_module(self.module)
        function = module
        for name in self.where.removeprefix(self.module + ".").split("."):
            function = getattr(function, name)
            function = getattr(function, "fget", function)  # of a property
        segment = inspect.getsource(function)
        count = segment.count(self.right)
        if count != 1:
            raise LookupError(f"{self.where} has {self.right!r} {count} times; the edit is stale unless it is once")
        return inspect.getsource(module).replace(segment, segment.replace(self.right, self.wrong))


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
