"""A tree of sources imported from memory, under a name of its own, beside the real package and any number of others.

The importing is lazy and by Python's own machinery: relative imports, packages and `inspect` work as they do on disk.
"""

import functools
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .sources import Tree, place

_numbers = itertools.count()


class Imported(InspectLoader, MetaPathFinder):
    """One tree, importable. `find` gives a function by its name."""

    def __init__(self, tree: Tree):
        self.tree, self.name = tree, f"course_tree_{next(_numbers)}"
        folders = {"/".join(path.split("/")[:depth]) for path in tree for depth in range(len(path.split("/")))}
        self.modules = {self._module(folder): None for folder in folders}
        self.modules |= {self._module(path): path for path in tree if path.endswith(".py")}
        sys.meta_path.insert(0, self)

    def _module(self, path: str) -> str:
        inside = path.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", ".")
        return f"{self.name}.{inside}".rstrip(".")

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname not in self.modules:
            return None
        source = self.modules[fullname]
        package = source is None or source.endswith("__init__.py")
        origin = f"<{source or fullname} of {self.name}>"
        return importlib.util.spec_from_loader(fullname, self, origin=origin, is_package=package)

    def is_package(self, fullname: str) -> bool:
        source = self.modules[fullname]
        return source is None or source.endswith("__init__.py")

    def get_source(self, fullname: str) -> str:
        source = self.modules[fullname]
        return "" if source is None else self.tree[source]

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = module.__spec__.origin
        exec(compile(self.get_source(module.__name__), module.__file__, "exec"), module.__dict__)

    def find(self, name: str) -> Callable:
        path, inside = place(self.tree, name)
        found = importlib.import_module(self._module(path))
        for part in inside.split(".") if inside else ():
            found = getattr(found, part)
        return found


@functools.cache
def _loaded(content: tuple[tuple[str, str], ...]) -> Imported:
    return Imported(dict(content))


def loaded(tree: Tree) -> Imported:
    """The tree, imported once however often it is asked for."""
    return _loaded(tuple(sorted(tree.items())))
