"""What the system knows about a process of this host: parent, start and command line.

Light on purpose: each cell of the matrix looks here for the run that it belongs to.
"""

import os


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
