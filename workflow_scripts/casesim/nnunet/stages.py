"""The stages of a configuration: itself alone or, of the cascade, the first one too.

A model of the cascade is a pair. The cascade's own network lies where that of any other
configuration does, `MODEL/fold_all`; the first stage is a model folder inside,
`MODEL/3d_lowres`, which nnU-Net's own commands take as well. Preprocessed cases of both
lie in folders side by side, named as nnU-Net names them (`data_identifier`). Imports
the standard library only: the workflow asks whenever it is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

CASCADE = "3d_cascade_fullres"
# nnU-Net's planner knows no other (`previous_stage` in the plans).
FIRST_STAGES = {CASCADE: "3d_lowres"}


def first_stage(configuration: str) -> str | None:
    """The configuration whose predictions this one takes as input; None for most."""
    return FIRST_STAGES.get(configuration)


def stages(configuration: str) -> list[str]:
    """The configurations that are trained, in this order."""
    first = first_stage(configuration)
    return [configuration] if first is None else [first, configuration]


def case_folder(configuration: str) -> str:
    """Name of the folder of cases that are preprocessed for a configuration."""
    return f"nnUNetPlans_{configuration}"


def by_stage(stems: Iterable[str], configuration: str) -> dict[str, list[str]]:
    """Preprocessed cases (paths without `.b2nd`) by the stage that they are for.

    Those of a cascade are told by their folder; of other configurations, all are for
    the one stage, wherever they lie.
    """
    names, stems = stages(configuration), list(stems)
    if len(names) == 1:
        return {configuration: stems}
    return {
        name: [s for s in stems if PurePath(s).parent.name == case_folder(name)]
        for name in names
    }


def beside(case: str | os.PathLike[str], configuration: str) -> Path:
    """The file of the same name among the cases preprocessed for a configuration."""
    path = Path(case)
    return path.parent.with_name(case_folder(configuration)) / path.name


def first_checkpoint(
    checkpoint: str | os.PathLike[str], configuration: str
) -> Path | None:
    """The first stage's checkpoint that belongs to a model's; None if it has none.

    `checkpoint` is MODEL/fold_all/checkpoint_final.pth of the model.
    """
    first, path = first_stage(configuration), Path(checkpoint)
    if first is None:
        return None
    return path.parent.parent / first / path.parent.name / path.name
