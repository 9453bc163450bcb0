"""Results from the future: the clock was set back since, or a server's clock is wrong.

Snakemake tells by dates what is outdated. Beside a result from the future, all that is
made now looks old: what follows from a corrected label would be taken for up to date.
So such results get dates of the past, in the order that they have. Standard library
only.
"""

import os
import time
from pathlib import Path

RESULTS = Path("results")
# Clocks of machines that share a disk differ by less.
_TOLERATED_NS = 60 * 10**9
# Snakemake reads dates as floating-point numbers, which are 0.24 µs apart.
_SMALLEST_STEP_NS = 1000


def bring_back(folder: Path = Path(), now_ns: int | None = None) -> tuple[int, int]:
    """Give results from the future dates of the past: the last one is of now.

    The distances between them stay, since scripts have dates, too, unless there is not
    so much time between the last other result and now. Only while nobody works in
    `folder`. Looks at folders first, whose dates are those of the last file that was
    put into them: there are few.

    Returns:
        How many files were from the future, and the seconds that the last was ahead;
        (0, 0) if there was none.
    """
    now = time.time_ns() if now_ns is None else now_ns
    folders = [Path(path) for path, _, _ in os.walk(folder / RESULTS)]
    late = [path for path in folders if path.stat().st_mtime_ns > now + _TOLERATED_NS]
    if not late:
        return 0, 0
    files = [path for place in folders for path in place.iterdir() if path.is_file()]
    dates = {path: path.lstat().st_mtime_ns for path in files if not path.is_symlink()}
    ahead = sorted({date for date in dates.values() if date > now})
    last = max((date for date in dates.values() if date <= now), default=0)
    new, before = {}, last
    for date in ahead:
        far = ahead[-1] - date
        if ahead[-1] - ahead[0] >= now - last:
            far = far * (now - last) // (ahead[-1] - ahead[0] + 1)
        before = new[date] = max(now - far, before + _SMALLEST_STEP_NS)
    for path, date in dates.items():
        if date in new:
            os.utime(path, ns=(now, new[date]))
    for path in late:
        os.utime(path, ns=(now, now))
    number = sum(date in new for date in dates.values())
    return number, (ahead[-1] - now) // 10**9 if ahead else 0
