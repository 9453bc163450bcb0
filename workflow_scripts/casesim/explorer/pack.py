"""A case's images and label maps as scripts, which a page may load even from a disk.

A page that is opened by a double click (`file://`) may not read files, but it may load
scripts: each holds one call that hands its content to the page.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casesim.errors import UserError
from casesim.explorer import budget, volumes
from casesim.files import atomic_path

REFERENCE = "reference"


def script(name: str, content: Any) -> str:
    """A script that hands `content` to the page under a name."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    # In a script's string these two end a line, which JSON does not know of.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"Explorer.receive({json.dumps(name)},{text});\n"


def read_script(path: str | os.PathLike[str]) -> Any:
    """The content of a file that was written with `script`.

    Raises:
        UserError: no such file, or something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text[text.index(",") + 1 : text.rindex(");")])
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing. Run the workflow to its end first, or "
            "`snakemake results/explorer/index.html`."
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} is no part of an explorer ({error}). Delete it and run the "
            "workflow again."
        ) from None


def write_script(name: str, content: Any, path: str | os.PathLike[str]) -> None:
    """Write a script for the page, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(script(name, content), encoding="utf-8")


def pack_case(
    case: str,
    images: Sequence[str],
    label: str,
    predictions: Mapping[str, str],
    ranked: Sequence[str],
    room: int,
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """All that the page shows of one case, as far as there is room.

    The first channel, the reference, the base model, the arms and the case's own model
    come first, then the other channels, then the models of the cases to review.

    Args:
        case: its id.
        images: a file for each channel.
        label: the reference label map.
        predictions: model (as it is named in paths) to label map. One whose file is
            missing is left out, and said to be missing.
        ranked: the cases to review, first ones first.
        room: bytes that may be used.

    Returns:
        The channels (`{"left_out": true}` where there was no room), the label maps
        (`maps` by model, `reference` among them), and what was left out: `bytes`,
        `channels` (numbers), `models` and `missing` (models).
    """
    channels = {f"channel_{i}": volumes.channel(path) for i, path in enumerate(images)}
    models = budget.order_of_maps(case, list(predictions), ranked)
    missing = [name for name in models if not Path(predictions[name]).exists()]
    maps = {REFERENCE: volumes.label_map(label)}
    for name in models:
        if name not in missing:
            maps[name] = volumes.label_map(predictions[name])
    needed = [name for name in maps if not _is_of_another_case(name, case)]
    others = [name for name in maps if _is_of_another_case(name, case)]
    first, *more = channels
    wanted = [REFERENCE, first, *needed[1:], *more, *others]
    sizes = {name: budget.size(part) for name, part in {**channels, **maps}.items()}
    kept, left_out = budget.fit(wanted, sizes, room)
    contents = {
        "bytes": sum(sizes[name] for name in kept),
        "channels": [i for i, name in enumerate(channels) if name in left_out],
        "models": [name for name in left_out if name in maps],
        "missing": missing,
    }
    packed = [
        part if name in kept else {"left_out": True} for name, part in channels.items()
    ]
    return packed, {"maps": {k: maps[k] for k in maps if k in kept}}, contents


def _is_of_another_case(model: str, case: str) -> bool:
    return model.startswith("finetuned/") and model != f"finetuned/{case}"
