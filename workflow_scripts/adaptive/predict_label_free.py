"""Segment one case with one model, without its label: a client of a predictor.

Run without site-packages (`python -S -E predict_label_free.py ...`), so that the job
starts in milliseconds; see casesim.processes.resident. This file also starts the
predictor that `segment_adaptive` shares.
"""

import os
import sys

# The package lies beside the folder of this stage; nobody else tells this process.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

from casesim.processes.resident import main

if __name__ == "__main__":
    sys.exit(main(__file__, sys.argv[1:], "casesim.adaptive.serving"))
