"""Segment one case with one model and score it: the client of the resident predictor.

Run without site-packages (`python -S -E predict.py ...`), so that the job starts in
milliseconds; see casesim.resident.
"""

import sys

from casesim.resident import main

if __name__ == "__main__":
    sys.exit(main(__file__, sys.argv[1:]))
