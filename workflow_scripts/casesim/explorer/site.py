"""The page's own files: which there are, and how they are put beside its data."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from casesim.files import atomic_path, sync

FOLDER = Path(__file__).parent / "page"
NAMES = tuple(sorted(path.name for path in FOLDER.iterdir()))


def digest() -> str:
    """SHA-256 of all files: a page made with other ones is made again."""
    total = hashlib.sha256()
    for name in NAMES:
        total.update(name.encode() + b"\0" + (FOLDER / name).read_bytes())
    return total.hexdigest()


def copy(paths: Iterable[str]) -> None:
    """Write each of the files that is asked for, whole or not at all."""
    for path in paths:
        with atomic_path(path) as temporary:
            temporary.write_bytes((FOLDER / Path(path).name).read_bytes())


def copy_files(explorer: Path, files: Iterable[str], target: Path) -> None:
    """Copy these files of an explorer, and nothing else, whole or not at all."""
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for file in files:
        copied = temporary / Path(file).relative_to(explorer)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copied)
        sync(copied)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
