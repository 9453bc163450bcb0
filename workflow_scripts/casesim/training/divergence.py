"""Which cases a training was looking at when its loss stopped being a number."""

import math
from collections.abc import Mapping
from typing import Any

# Beyond, in standard deviations, a voxel is more likely a mistake than an image.
STRANGE = 100.0


def name_cases(batch: Mapping[str, Any]) -> str:
    """The cases of a batch after which the loss was no number, the oddest first.

    `batch` has `data` (b, channel, ...), normalised, and `keys`, b names.
    """
    peaks: dict[str, float] = {}
    for case, data in zip(batch["keys"], batch["data"], strict=True):
        peak = float(data.abs().nan_to_num(nan=math.inf).max())
        peaks[case] = max(peak, peaks.get(case, 0.0))
    listed = sorted(peaks, key=lambda case: (-peaks[case], case))
    odd = [case for case in listed if peaks[case] > STRANGE]
    if not odd:
        return (
            f"Its batch was made of {', '.join(listed)}, whose values are as they "
            "should be."
        )
    shown = ", ".join(f"{case} (up to {peaks[case]:.3g})" for case in odd)
    return (
        f"Its batch holds values far from the others of their image, in standard "
        f"deviations: {shown}. Look at these images, mend them or take the cases out."
    )
