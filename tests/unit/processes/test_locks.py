"""Locks, and the folder that they are in."""

import os
from pathlib import Path
from typing import Any

import pytest

from casesim.errors import UserError
from casesim.processes import locks


def test_private_folder_is_for_the_user_alone(runtime: Path) -> None:
    folder = Path(locks.private_folder())
    assert folder == runtime / "casesim"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_open_runtime_folder_is_not_used(runtime: Path) -> None:
    runtime.chmod(0o755)
    try:
        assert Path(locks.private_folder()).parent == Path("/tmp")
    finally:
        runtime.chmod(0o700)


@pytest.mark.parametrize("kind", ["link", "wide", "file"])
def test_folder_that_others_could_have_made_is_not_used(
    runtime: Path, kind: str
) -> None:
    folder = runtime / "casesim"
    if kind == "link":
        (runtime / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(runtime / "elsewhere")
    elif kind == "wide":
        folder.mkdir()
        folder.chmod(0o750)
    else:
        folder.touch(mode=0o700)
    assert Path(locks.private_folder()) != folder


def test_error_when_no_folder_can_be_trusted(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_is_private", lambda folder: False)
    with pytest.raises(UserError, match="XDG_RUNTIME_DIR"):
        locks.private_folder()


def test_runtime_folder_with_a_long_path_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 60)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert not locks.private_folder().startswith(str(long))


def test_lock_file_that_was_deleted_is_no_lock(runtime: Path) -> None:
    path = runtime / "x.lock"
    holder = locks.try_lock(str(path))
    assert holder is not None
    assert locks.try_lock(str(path)) is None
    real_open = os.open

    def open_then_deleted(*arguments: Any) -> int:
        descriptor = real_open(*arguments)
        path.unlink()
        return descriptor

    os.close(holder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_then_deleted)
        assert locks.try_lock(str(path)) is None
    new = locks.try_lock(str(path))
    assert new is not None
    os.close(new)
