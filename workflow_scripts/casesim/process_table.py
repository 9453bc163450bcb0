"""What the system knows about the processes of this host, and which are Snakemake.

Light on purpose: each cell of the matrix looks here for the run that it belongs to.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def process_information(pid: int) -> tuple[int, str, list[str]] | None:
    """A process's parent, start time and command line; None when it has ended.

    A process that has ended and waits for its parent to take notice counts as ended.
    """
    if not os.path.exists("/proc/self/stat"):  # noqa: PTH110
        return _process_information_by_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The name, in parentheses, can itself contain parentheses and spaces.
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            command = os.fsdecode(file.read()).split("\0")[:-1]
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[1]), fields[19].decode(), command


def _process_information_by_ps(pid: int) -> tuple[int, str, list[str]] | None:
    """The same where there is no /proc (macOS); start times are whole seconds there."""
    import subprocess

    shown = subprocess.run(
        ["ps", "-o", "stat=,ppid=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    ).stdout.split()
    if len(shown) < 7 or shown[0].startswith("Z"):
        return None
    return int(shown[1]), "-".join(shown[2:7]), shown[7:]


def is_snakemake(command: list[str]) -> bool:
    """Whether a command line is `snakemake`, `python .../snakemake` or `-m snakemake`.

    A shell that runs a job has the word in its script or in a path, too.
    """
    names = [os.path.basename(word) for word in command[:4]]  # noqa: PTH119
    if not names or not names[0].startswith("python"):
        return names[:1] == ["snakemake"]
    return any(name.removesuffix(".py") == "snakemake" for name in names[1:])


def processes_in(folder: str) -> "Iterator[tuple[int, list[str]]]":
    """This user's processes whose working directory is `folder`, with their commands.

    None where there is no /proc.
    """
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else []:  # noqa: PTH110, PTH208
        if not name.isdigit():
            continue
        try:
            here = os.readlink(f"/proc/{name}/cwd") == folder  # noqa: PTH115
        except OSError:
            continue
        information = process_information(int(name)) if here else None
        if information is not None:
            yield int(name), information[2]


def children(parent: int) -> "Iterator[int]":
    """The living processes that a process has started; none where there is no /proc."""
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else []:  # noqa: PTH110, PTH208
        information = process_information(int(name)) if name.isdigit() else None
        if information is not None and information[0] == parent:
            yield int(name)
