"""Who imports whom inside the package: only downwards, never in a circle.

The rooms and their order are those of the design. A room may import what stands on a
line above its own, and, among the rooms of one line, nothing but itself.
"""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"
PACKAGE = SCRIPTS / "casesim"

# From the ground up.
LINES = (
    (
        *(
            "cells",
            "channels",
            "dates",
            "errors",
            "files",
            "images",
            "memory",
            "process_table",
            "records",
            "runs",
        ),
        *("settings", "termination"),
    ),
    ("cohort", "nnunet", "processes"),
    ("inference",),
    # A cascade trains its second stage on what its first one predicts.
    ("training",),
    ("similarity",),
    ("pruning",),
    ("evidence",),
    ("adaptive",),
    ("explorer", "report"),
    # It asks the rooms for their light parts alone.
    ("study",),
)
HEIGHT = {room: height for height, rooms in enumerate(LINES) for room in rooms}


def module_name(file: Path) -> str:
    parts = file.relative_to(SCRIPTS).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """Every module that a module's text imports, wherever in the text it does so."""
    package = (
        module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                # `from casesim.cohort import checks` imports a module, not a name.
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base


def dependencies(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text())
    return {
        name
        for name in imported(module, tree)
        if name == "casesim" or name.startswith("casesim.")
    }


def at_once(module: str) -> set[str]:
    """What is imported with a module, not only when a function of it is called."""
    tree = ast.parse(MODULES[module].read_text())
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.Module(body, [])):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, functions):
                child.body = []
    return set(imported(module, ast.Module(body, [])))


def parsed_with_the_snakefile() -> set[str]:
    """Modules of the package that the workflow's own files import."""
    found = set()
    for file in [
        SCRIPTS.parent / "Snakefile",
        *(SCRIPTS.parent / "rules").glob("*.smk"),
    ]:
        statement = r"^\s*from (casesim[\w.]*) import (\([^)]*\)|[^\n(]+)$"
        for base, names in re.findall(statement, file.read_text(), re.MULTILINE):
            for part in names.strip("()").split(","):
                if name := part.split(" as ")[0].strip():
                    whole = f"{base}.{name}"
                    found.add(whole if whole in MODULES else base)
    return found


def room(module: str) -> str:
    """The package of a stage, or the module that stands for itself."""
    return module.split(".")[1]


def problems(module: str, names: set[str]) -> list[str]:
    """The imports of a module that lead upwards or sideways."""
    here = room(module)
    return [
        f"{module} imports {name}"
        for name in sorted(names - {"casesim"})
        if room(name) != here
        and HEIGHT[room(name)] >= HEIGHT[here]
        and not (HEIGHT[here] == HEIGHT[room(name)] == 0)
    ]


def test_every_room_has_its_place() -> None:
    rooms = {room(module) for module in MODULES if module != "casesim"}
    assert rooms <= set(HEIGHT), "say in LINES where the new room stands"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "casesim"])
def test_imports_lead_downwards(module: str) -> None:
    assert not problems(module, dependencies(module))


def test_no_circle() -> None:
    graph = {module: dependencies(module) - {module} for module in MODULES}
    # A room's own text comes before its modules'.
    for module in graph:
        graph[module] = graph[module] | {module.rpartition(".")[0]} - {""}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    "module", [m for m, f in MODULES.items() if f.name == "__init__.py"]
)
def test_a_rooms_door_is_light(module: str) -> None:
    """`__init__` says what lives there, and imports nothing."""
    tree = ast.parse(MODULES[module].read_text())
    assert not list(imported(module, tree))
    assert ast.get_docstring(tree)


def test_what_every_job_parses_needs_the_standard_library_alone() -> None:
    reached, waiting = set(), parsed_with_the_snakefile()
    assert "casesim.settings" in waiting
    while waiting:
        module = waiting.pop()
        reached.add(module)
        inside = {name for name in at_once(module) if name.split(".")[0] == "casesim"}
        outside = {name.split(".")[0] for name in at_once(module) - inside}
        assert not outside - sys.stdlib_module_names, f"{module} imports {outside}"
        waiting |= inside - reached
    assert "casesim.errors" in reached


def test_every_import_inside_the_package_exists() -> None:
    for module in MODULES:
        assert dependencies(module) <= set(MODULES)


def test_the_test_sees_what_it_should() -> None:
    assert problems("casesim.nnunet.x", {"casesim.training.trainer"})
    assert problems("casesim.processes.x", {"casesim.nnunet.jobs"})
    assert problems("casesim.runs", {"casesim.processes.locks"})
    assert problems("casesim.inference.x", {"casesim.training.cascade"})
    assert not problems("casesim.training.x", {"casesim.nnunet.jobs", "casesim.files"})
    tree = ast.parse(
        "import casesim.errors as e\n"
        "def f():\n    from casesim.processes import devices\n"
        "from . import trainer\nfrom .trainer import train\nfrom ..files import logged"
    )
    assert set(imported("casesim.training.jobs", tree)) == {
        "casesim.errors",
        "casesim.processes.devices",
        "casesim.training.trainer",
        "casesim.files",
    }
