"""The kinds, by name, and how one is added."""

from collections.abc import Callable
from typing import Any

from unit.cohort.checks.broken import Folder

# Breaks the folder; returns what else of the config is other.
Break = Callable[[Folder], Any]
KINDS: dict[str, tuple[Break, str]] = {}


def kind(name: str, message: str) -> Callable[[Break], Break]:
    def keep(function: Break) -> Break:
        assert name not in KINDS
        KINDS[name] = (function, message)
        return function

    return keep


def add(name: str, message: str, function: Break) -> None:
    kind(name, message)(function)
