"""What Snakemake noted of finished jobs, as far as a power cut has left it.

For each output Snakemake notes what it was made of: code, params, inputs. It does not
sync these notes, and passes over one that is cut off: the output would be taken as it
is for ever, whatever is changed in the config. So it counts as unfinished instead, and
is made again. Standard library only.
"""

import os
from collections.abc import Iterator
from pathlib import Path

METADATA = Path(".snakemake/metadata")
INCOMPLETE = Path(".snakemake/incomplete")
# As Snakemake marks the outputs of a job that it has begun.
_MARK = '{"external_jobid": null}'


def distrust_damaged(folder: Path = Path()) -> int:
    """Have the outputs made again whose notes are damaged.

    Only while no Snakemake works in `folder`: a note may just be written. What cannot
    be read or written is left to Snakemake.

    Returns:
        How many notes were damaged.
    """
    number = 0
    for path in _files(folder / METADATA):
        if _is_whole(path):
            continue
        mark = folder / INCOMPLETE / os.path.relpath(path, folder / METADATA)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(_MARK)
        Path(path).unlink()
        number += 1
    return number


def _files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """All files below a folder: names that are too long for one are split."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry.path


def _is_whole(path: str) -> bool:
    """Whether a note ends as a JSON object does; of thousands none is read as a whole.

    What was not synced is empty, cut off, or has zeros at its end.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        size = os.fstat(file).st_size
        return size > 0 and os.pread(file, 1, size - 1) == b"}"
    except OSError:
        return True
    finally:
        os.close(file)
