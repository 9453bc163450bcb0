"""Where the workflow's files are, and that Python can load them, before it does so."""

import marshal
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

# Of a compiled module, before its code.
_HEADER_BYTES = 16
# Python up to 3.11.3, which is Debian 12's, knows no filters, later ones warn without.
_EXTRACTION: dict[str, Any] = (
    {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
)


def find_checkout(rules: Any) -> Path:
    """The folder of the Snakefile, of which `rules` is the folder of rules.

    Snakemake's `workflow.basedir` is another workflow's when this one is its module. Of
    a module named by `github(...)` Snakemake brings single files; the package is
    unpacked beside its copy of the repository, once for each commit. Raises
    `WorkflowError` for a folder that Snakemake cannot work in.
    """
    if rules.is_local:
        folder = Path(str(rules)).parent
        _refuse_braces(folder)
        return folder
    rules.fetch_if_required()
    hosted = rules.hosted_repo
    commit = hosted.repo.commit(rules.ref).hexsha
    folder = Path(f"{hosted.repo_clone}-{commit}")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            whole = Path(unpacked, "whole")
            with tempfile.TemporaryFile() as archive:
                hosted.repo.archive(archive, commit)
                archive.seek(0)
                with tarfile.open(fileobj=archive) as files:
                    files.extractall(whole, **_EXTRACTION)
            whole.rename(folder)
    return folder


def remove_damaged_modules(folder: Path) -> None:
    """Remove the compiled modules below `folder` that are cut off.

    On a full disk Python writes a part of such a file without noticing (3.11), and a
    power cut may leave one. No process could import that module any more, now or after
    there is room again. Those of other versions of Python stay.
    """
    for path in folder.rglob(f"__pycache__/*.{sys.implementation.cache_tag}*.pyc"):
        with suppress(OSError):
            try:
                marshal.loads(path.read_bytes()[_HEADER_BYTES:])
            except (EOFError, ValueError, TypeError):
                path.unlink()


def _refuse_braces(folder: Path) -> None:
    if {"{", "}"} & set(str(folder)):
        from snakemake.exceptions import WorkflowError

        raise WorkflowError(
            f"The workflow lies in {folder}: Snakemake takes braces in a path for "
            "wildcards. Rename that folder, or put the workflow elsewhere."
        )
