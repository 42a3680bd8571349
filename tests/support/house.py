"""Checks of the house rules (docs/development.md) over the sources, without importing any of them.

Each check takes modules and returns its findings, one line for each: `module: what is wrong`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.support.places import REPOSITORY

PACKAGE = "rts_batch"


@dataclass(frozen=True)
class Module:
    """One source file, by its dotted name; a package's `__init__` has the package's name."""

    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def room(self) -> str:
        """The folder or module below the package that it belongs to; `__init__` is the package's own."""
        return [*self.name.split("."), "__init__"][1]

    @cached_property
    def imports(self) -> frozenset[str]:
        """What it imports, by dotted names, also within functions and for type checkers alone.

        `from a import b` counts as `a.b`, whatever b is; `importlib.import_module("a")` as `a`.
        """
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.name}: relative import; write the whole name"
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Call) and node.args and called(node) == "import_module":
                target = node.args[0]
                if isinstance(target, ast.Constant) and isinstance(target.value, str):
                    found.add(target.value)
        return frozenset(found)


def read_modules(folder: Path = REPOSITORY / PACKAGE) -> list[Module]:
    """All modules of a package or a folder of scripts."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        modules.append(Module(".".join(parts).removesuffix(".__init__"), path.read_text()))
    return modules


def within(name: str, folders: Iterable[str]) -> bool:
    """Whether a dotted name is one of these or below one."""
    return any(name == folder or name.startswith(f"{folder}.") for folder in folders)


def called(call: ast.Call) -> str:
    """The last name of what is called, `b` of `a.b()`."""
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def inner_imports(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Which modules of the package each module imports."""
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        graph[module.name] = set()
        for imported in module.imports:
            if within(imported, [PACKAGE]):
                # `from a.b import c` is the module a.b.c or something in a.b.
                target = imported if imported in names else imported.rpartition(".")[0] or imported
                graph[module.name].add(target)
        graph[module.name].discard(module.name)
    return graph


def upward_imports(modules: Sequence[Module], floors: Sequence[Sequence[str]]) -> list[str]:
    """Imports of what is not on a lower floor and not in the same room, and rooms without a floor."""
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    homeless = {module.room for module in modules} - floor_of.keys()
    found = [f"{PACKAGE}.{room}: no floor is given" for room in sorted(homeless)]
    for name, targets in inner_imports(modules).items():
        room = Module(name, "").room
        for target in sorted(targets):
            other = Module(target, "").room
            if room != other and floor_of.get(other, 0) >= floor_of.get(room, 0):
                found.append(f"{name}: imports {target}")
    return found


def circles(modules: Sequence[Module]) -> list[str]:
    """Modules that import each other, circle by circle; a found one is taken apart before the next is looked for."""
    graph = inner_imports(modules)
    found = []
    while circle := _circle(graph):
        found.append(f"{', '.join(sorted(circle))}: circle")
        for name in circle:
            graph[name] -= circle
    return found


def _circle(graph: Mapping[str, set[str]]) -> set[str]:
    try:
        TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).prepare()
    except CycleError as error:
        return set(error.args[1])
    return set()


def foreign_libraries(modules: Iterable[Module], owners: Mapping[str, Sequence[str]]) -> list[str]:
    """Imports of a library by a module that is not among its owners."""
    return [
        f"{module.name}: imports {library}"
        for module in modules
        for library, allowed in owners.items()
        if any(within(imported, [library]) for imported in module.imports)
        and not within(module.name, [f"{PACKAGE}.{owner}" for owner in allowed])
    ]


def foreign_names(modules: Iterable[Module], owners: Mapping[str, Sequence[str]]) -> list[str]:
    """Uses of a name, `ParquetWriter` for example, by a module that is not among its owners."""
    found = []
    for module in modules:
        used = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
        used |= {imported.rpartition(".")[2] for imported in module.imports}
        found += [
            f"{module.name}: uses {name}"
            for name, allowed in owners.items()
            if name in used and not within(module.name, [f"{PACKAGE}.{owner}" for owner in allowed])
        ]
    return found


RUN_FOLDERS = ("masks", "videos", "failed", "checkpoints")
RUN_PATH = re.compile(
    rf"(.*/)?((run|status|summary|cancel|lease)\.json|manifest\.parquet)|({'|'.join(RUN_FOLDERS)})/\S*"
)


def run_folder_names(modules: Iterable[Module], owners: Sequence[str]) -> list[str]:
    """Literals that are a path in a run's folder, in a module that is not among the owners; docstrings are prose.

    That is a file's name, a text that begins with a folder and a slash (also an f-string), or a folder's name where a
    path is put together: beside a slash, in a `join`, or given a name to be used so.
    """
    found = []
    for module in modules:
        if within(module.name, [f"{PACKAGE}.{owner}" for owner in owners]):
            continue
        prose = set(_docstrings(module.tree))
        spelled = (text.value for text in _texts(module.tree) if text not in prose and RUN_PATH.fullmatch(text.value))
        found += [f"{module.name}: spells {text!r}" for text in spelled]
        found += [f"{module.name}: joins {text!r}" for text in _joined(module.tree) if text in RUN_FOLDERS]
    return found


def _texts(tree: ast.AST) -> Iterator[ast.Constant]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Texts that stand alone: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _joined(tree: ast.AST) -> Iterator[object]:
    """Constants that a path is made of: beside a slash, in a `join`, or the whole value of a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts: Sequence[ast.expr | None] = [node.left, node.right]
        elif isinstance(node, ast.Call) and called(node) in ("join", "joinpath"):
            parts = node.args
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            parts = [node.value]
        else:
            continue
        yield from (part.value for part in parts if isinstance(part, ast.Constant))


MOST_LINES = 300
MOST_FUNCTION_LINES = 50
MOST_PARAMETERS = 8


def long_modules(modules: Iterable[Module]) -> list[str]:
    return [module.name for module in modules if len(module.source.splitlines()) > MOST_LINES]


def long_functions(modules: Iterable[Module]) -> list[str]:
    """Functions of too many lines, their docstring not counted, or of too many parameters, `self` not counted."""
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[0]
            text = first if ast.get_docstring(node, clean=False) is not None else None
            lines = (node.end_lineno or 0) - node.lineno + 1
            lines -= 0 if text is None else (text.end_lineno or 0) - text.lineno + 1
            names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            parameters = len(names) - (names[:1] in (["self"], ["cls"]))
            if lines > MOST_FUNCTION_LINES:
                found.append(f"{module.name}.{node.name}: lines")
            if parameters > MOST_PARAMETERS:
                found.append(f"{module.name}.{node.name}: parameters")
    return found


TOLD_OF = re.compile(
    r"(Returns|Raises|Yields|Reads|Writes|Takes|Gives|Puts|Opens|Closes|Makes|Builds|Loads|Finds|Adds|Removes|Checks|Waits"
    r"|Has|Does|Says|Tells|Asks|Keeps|Decodes|Learns) "
)


def told_docstrings(modules: Iterable[Module]) -> list[str]:
    """Functions whose docstring tells of them ("Returns …") instead of saying what to do ("Return …")."""
    return [
        f"{module.name}.{node.name}: {text.split()[0]}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and TOLD_OF.match(text := ast.get_docstring(node) or "")
    ]


def lost_tests(tests: Iterable[str], modules: Iterable[Module], rooms: Sequence[str]) -> list[str]:
    """Test files whose path, relative to `tests`, is of no module: a/test_b.py tests rts_batch/a/b.py.

    A folder of `rooms` tests the whole or the repository.
    """
    names = {module.name for module in modules}
    found = []
    for path in tests:
        *folders, file = path.removesuffix(".py").split("/")
        name = ".".join([PACKAGE, *folders, file.removeprefix("test_")])
        if folders[:1] not in [[room] for room in rooms] and name not in names:
            found.append(path)
    return found


def untested_folders(tests: Iterable[str], modules: Iterable[Module]) -> list[str]:
    """Folders of the package that have modules but no test file in the folder of their path."""
    # a/test_b.py tests the folder a/b as a whole.
    tested = {folder for path in tests for folder in (path.rpartition("/")[0], path[:-3].replace("test_", ""))}
    names = {module.name for module in modules}
    folders = {name.rpartition(".")[0] for name in names} - {""}
    inhabited = {name.rpartition(".")[0] for name in names - folders}
    return sorted({"/".join(folder.split(".")[1:]) for folder in inhabited} - tested)
