"""What is done before anything of the workflow can be imported."""

import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

import checkout


def compiled(folder: Path, name: str) -> Path:
    """A module of its own, with its compiled form."""
    source = folder / "package" / f"{name}.py"
    source.parent.mkdir(exist_ok=True)
    source.write_text(f"VALUES = {list(range(50))}\nNAME = {name!r}\n")
    return Path(str(py_compile.compile(str(source), doraise=True)))


def say(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-B", "-c", "import package.a; print(package.a.NAME)"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.99])
@pytest.mark.parametrize("rest", [b"", b"\0" * 8])
def test_modules_that_are_cut_off_are_compiled_again(
    tmp_path: Path, share: float, rest: bytes
) -> None:
    damaged, whole = compiled(tmp_path, "a"), compiled(tmp_path, "b")
    content = damaged.read_bytes()
    size = 16 + int(share * (len(content) - 16))
    damaged.write_bytes(content[:size] + rest)
    other = damaged.with_name("a.cpython-399.pyc")
    other.write_bytes(b"of another Python")
    if not rest:
        assert "EOFError" in say(tmp_path).stderr
    checkout.remove_damaged_modules(tmp_path)
    assert say(tmp_path).stdout == "a\n"
    assert not damaged.exists()
    assert whole.exists()
    assert other.exists()


def test_a_workflow_that_is_not_there_is_none_of_its_business(tmp_path: Path) -> None:
    checkout.remove_damaged_modules(tmp_path / "nowhere")
