"""Whom a process beside the jobs belongs to, and which version of the code it is."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from unit.processes.hosts import short_folder

from casesim.process_table import process_information
from casesim.processes import service


def test_owner_is_the_parent_where_there_is_no_snakemake() -> None:
    pid, started = service.find_owner()
    assert int(pid) == os.getppid()
    information = process_information(os.getppid())
    assert information is not None
    assert started == information[1]


def test_version_covers_every_file_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "casesim"
    shutil.copytree(service._PACKAGE, package)
    monkeypatch.setattr(service, "_PACKAGE", str(package))
    versions = [service.code_version()]
    assert service.code_version() == versions[0]
    for file in sorted(package.rglob("*.py")):
        with file.open("a") as text:
            text.write("# edited\n")
        versions.append(service.code_version())
    assert len(versions) > 40
    assert len(set(versions)) == len(versions)
    (package / "training/new.py").touch()
    versions.append(service.code_version())
    (package / "training/new.py").unlink()
    assert service.code_version() == versions[-2] != versions[-1]


def test_version_is_that_of_the_sources_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "casesim"
    (package / "room/__pycache__").mkdir(parents=True)
    (package / "room/a.py").touch()
    monkeypatch.setattr(service, "_PACKAGE", str(package))
    before = service.code_version()
    (package / "room/__pycache__/a.cpython-312.pyc").touch()
    (package / "room/__pycache__/b.py").touch()
    (package / "room/notes.txt").touch()
    assert service.code_version() == before


def test_it_starts_where_the_folder_of_its_socket_was_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whoever empties /tmp, between two jobs or in the middle of one."""
    with short_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        started = service.Service("thing", "thing", (sys.executable, "-c", "pass"))
        shutil.rmtree(folder / "casesim")
        process = started._start()
        assert process is not None
        process.wait(60)
        assert (folder / "casesim").is_dir()
