"""The disk is full at each write: said in the user's words, nothing half is left.

A limit on the size of files stands in for the disk where a file system of a few
megabytes cannot be mounted.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.images import write_nifti
from casesim.nnunet import checkpoints, preprocessing
from casesim.nnunet.files import write_json
from workflow.conftest import Checkout, wait_for

from .conftest import FULL, SEED, TARGETS, TINY, tables
from .kills import begun, has_begun

ROOM = 256 << 10
TIMES_FULL = 8
SECONDS_FULL = 15.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals as on Linux")


def image() -> Any:
    import SimpleITK

    draw = np.random.default_rng(0)
    return SimpleITK.GetImageFromArray(
        draw.integers(0, 4, (20, 40, 50)).astype(np.uint8)
    )


def write_nibabel(path: Path) -> None:
    import nibabel as nib

    draw = np.random.default_rng(0)
    volume = nib.nifti1.Nifti1Image(draw.normal(size=(20, 30, 40)), np.eye(4))
    with atomic_path(path) as temporary:
        nib.save(volume, temporary)


def write_checkpoint(path: Path) -> None:
    import torch

    checkpoints.save_checkpoint(path, {"weights": torch.arange(10_000.0)})


def write_table(path: Path) -> None:
    with atomic_path(path) as temporary:
        pd.DataFrame({"dice": np.linspace(0, 1, 3000)}).to_csv(temporary, sep="\t")


def write_figure(path: Path) -> None:
    from casesim.training.progress import plot_progress

    plot_progress(
        [{"loss": 1.0 / (n + 1), "pseudo_dice": None} for n in range(9)], path
    )


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "label map": ("a.nii.gz", lambda path: write_nifti(image(), path)),
    "imported image": ("a.nii.gz", write_nibabel),
    "checkpoint": ("a.pth", write_checkpoint),
    "table": ("a.tsv", write_table),
    "JSON": ("a.json", lambda path: write_json(path, {"a": list(range(3000))})),
    "figure": ("a.png", write_figure),
}


def in_a_child(work: Callable[[], str], limit: int) -> str:
    """What `work` returns in a process whose files have at most `limit` bytes."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            said = "nothing"
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            said = work()
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, "but one"])
def test_every_kind_of_file(
    tmp_path: Path, kind: str, share: float | str, count: Counter[str]
) -> None:
    name, write = WRITERS[kind]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    size = len(whole) - 1 if isinstance(share, str) else int(share * len(whole))

    def attempt() -> str:
        try:
            write(path)
        except UserError as error:
            return f"told: {error}"
        except Exception as error:
            return f"raised: {error}"
        return "nothing"

    said = in_a_child(attempt, size)
    # torch says it in its own words; nobody is silent.
    assert said.startswith("told: " if kind != "checkpoint" else ("told: ", "raised: "))
    assert path.read_bytes() == whole, "what was there stays there"
    assert [file.name for file in tmp_path.iterdir()] == [name]
    path.unlink()
    assert in_a_child(attempt, size) == said
    assert not list(tmp_path.iterdir())
    write(path)
    assert path.read_bytes() == whole
    count["writes onto a full disk"] += 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_preprocessed_case(tmp_path: Path, share: float, count: Counter[str]) -> None:
    """Three files in one, which nnU-Net and blosc2 write."""
    draw = np.random.default_rng(0)
    data = draw.normal(size=(2, 8, 40, 40)).astype(np.float32)
    manager: Any = SimpleNamespace(patch_size=(40, 40))

    def save(name: str) -> None:
        segmentation = np.ones((1, 8, 40, 40), np.int16)
        preprocessing._save_preprocessed(
            data, segmentation, {}, manager, tmp_path / name
        )

    def attempt() -> str:
        try:
            save("b")
        except UserError as error:
            return f"told: {error}"
        return "nothing"

    save("a")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.b2nd", "a.pkl", "a_seg.b2nd"]
    said = in_a_child(attempt, int(share * (tmp_path / "a.b2nd").stat().st_size))
    assert "b.b2nd cannot be written" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    count["writes onto a full disk"] += 1


@pytest.mark.parametrize("kind", WRITERS)
def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = WRITERS[kind]
    synced, named = [], []
    sync, replace = os.fsync, Path.replace

    def note_sync(file: int) -> None:
        sync(file)
        status = os.fstat(file)
        synced.append((status.st_ino, status.st_size))

    def note_name(path: Path, target: Any) -> Path:
        status = path.stat()
        named.append((status.st_ino, status.st_size))
        assert named[-1] in synced
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_name)
    write(tmp_path / name)
    status = (tmp_path / name).stat()
    assert (status.st_ino, status.st_size) in named


def test_disk_without_room_for_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkstemp", no_room)
    with pytest.raises(UserError, match=r"a\.json cannot be written: No space left"):
        write_json(tmp_path / "a.json", {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, of a size that can be changed (`resize`)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "casesim", str(disk)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def resize(disk: Path, kilobytes: int) -> bool:
    """Whether it could be done: not to less than what is there by now."""
    options = f"remount,size={kilobytes}k"
    command = ["mount", "-o", options, str(disk)]
    return not subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def fill(disk: Path, left: int) -> None:
    """Leave so many kilobytes of room."""
    for _ in range(50):
        state = os.statvfs(disk)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
        if resize(disk, used + left):
            return
    raise AssertionError("somebody writes too fast")


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(3600)
def test_study_on_a_disk_that_is_full_again_and_again(
    undisturbed: Checkout, small_disk: Path, tmp_path: Path, count: Counter[str]
) -> None:
    """Its room is gone at random moments, and there again when a job has failed."""
    draw = random.Random(SEED)
    checkout = Checkout(small_disk / "study", TINY)
    # What Snakemake prints goes to a terminal, which has no disk.
    log = tmp_path / "started.log"
    checkout.path("started.log").symlink_to(log)
    filled = failed = 0
    for _ in range(2 * TIMES_FULL):
        running = checkout.start(*TARGETS)
        while running.poll() is None and filled < TIMES_FULL:
            enough = begun(checkout) + draw.randint(1, 8)
            wait_for(partial(has_begun, checkout, running, enough))
            fill(small_disk, left=draw.choice((0, 4, 64, 512)))
            filled += 1
            told, deadline = failures(log), time.monotonic() + SECONDS_FULL
            while failures(log) == told and time.monotonic() < deadline:
                time.sleep(0.1)
            assert resize(small_disk, ROOM)
        if not running.wait(900):
            break
        failed += 1
    else:
        pytest.fail(log.read_text()[-3000:])
    assert failed
    assert tables(checkout) == tables(undisturbed)
    left = list(checkout.path("results").rglob(".tmp-*"))
    assert not left
    scores = checkout.path("results/scores").glob("**/*.json")
    assert all(json.loads(score.read_text()) for score in scores)
    count["times that the disk was full under a study"] += filled
    count["starts that ended since the disk was full"] += failed


def failures(log: Path) -> int:
    """Jobs that have failed, by what Snakemake has printed."""
    return log.read_text(errors="replace").count("Error in ")
