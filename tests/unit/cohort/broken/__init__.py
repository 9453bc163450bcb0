"""Every kind of broken cohort that is named: how a sound one is broken, and the words.

Each entry breaks a sound nnU-Net raw folder (or its config) and says which words must
come out: of an error or warning of the check, which names the case or file and how to
mend it, or of the `UserError` that ends the start.
"""

from unit.cohort.broken import descriptions, files, voxels
from unit.cohort.broken.kinds import KINDS

__all__ = ["KINDS", "descriptions", "files", "voxels"]
