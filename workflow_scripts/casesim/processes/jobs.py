"""Jobs by name: `casesim.<room>.jobs:<function>`, done with plain values.

Such a module holds the jobs of its room that need nnU-Net. They are functions of text,
numbers, lists and dictionaries, so that a script can hand them to the warm process (see
`warm`) or have them done in its own. `IMPORTS` tells for each of them, by the
function's name, which modules it will import: so nnU-Net is loaded once, beforehand.
Nothing else can be asked for by name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from casesim.errors import UserError

Job = Callable[..., None]

_NAME = re.compile(r"(casesim\.[a-z_]+\.jobs):([a-z_]+)")


def is_known(name: str) -> bool:
    """Whether there is a job of that name."""
    found = _NAME.fullmatch(name)
    return found is not None and found[2] in _imports(found[1])


def find(name: str) -> Job:
    """The function of a job; raises `UserError` when there is no job of that name."""
    module, function = _split(name)
    return getattr(import_module(module), function)


def prepare(name: str) -> None:
    """Import what a job imports, and compute nothing: no thread and no GPU is used."""
    module, function = _split(name)
    for needed in _imports(module)[function]:
        import_module(needed)


def _split(name: str) -> tuple[str, str]:
    if not is_known(name):
        raise UserError(f"There is no job {name!r}.")
    module, _, function = name.partition(":")
    return module, function


def _imports(module: str) -> Mapping[str, Sequence[str]]:
    try:
        return import_module(module).IMPORTS
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return {}
