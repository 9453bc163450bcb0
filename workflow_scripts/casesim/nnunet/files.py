"""nnU-Net's JSON files, and what is said of a file that is missing or damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from casesim.errors import UserError
from casesim.files import atomic_path

PathLike = str | os.PathLike[str]


def read_json(path: PathLike) -> dict[str, Any]:
    """Read a JSON object; `UserError` names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Delete it; it is made again."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object. Delete it; it is made again.")
    return content


def write_json(path: PathLike, content: Any) -> None:
    """Write JSON, atomically."""
    with atomic_path(path) as temporary:
        # Not sorted: the order of labels and channels has a meaning for nnU-Net.
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def damaged(path: PathLike, error: Exception) -> UserError:
    """What to tell of a file that is missing or cannot be read."""
    if not Path(path).exists():
        return UserError(
            f"{path} is missing. Run the workflow again to make it; if it stays "
            "missing, delete what else there is of that name first."
        )
    return UserError(
        f"{path} is damaged ({error}). Delete it and run the workflow again."
    )
