"""Where the workflow's files are, found before anything of it can be imported."""

import tarfile
import tempfile
from pathlib import Path
from typing import Any


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
                    files.extractall(whole, filter="data")
            whole.rename(folder)
    return folder


def _refuse_braces(folder: Path) -> None:
    if {"{", "}"} & set(str(folder)):
        from snakemake.exceptions import WorkflowError

        raise WorkflowError(
            f"The workflow lies in {folder}: Snakemake takes braces in a path for "
            "wildcards. Rename that folder, or put the workflow elsewhere."
        )
