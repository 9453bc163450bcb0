"""Where the workflow's files are, found before anything of it can be imported."""

import tarfile
import tempfile
from pathlib import Path
from typing import Any


def find_checkout(rules: Any) -> Path:
    """The folder of the Snakefile, of which `rules` is the folder of rules.

    Snakemake's `workflow.basedir` is another workflow's when this one is its module. Of
    a module named by `github(...)` Snakemake brings single files; the package is
    unpacked beside its copy of the repository, once for each commit.
    """
    if rules.is_local:
        return Path(str(rules)).parent
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
