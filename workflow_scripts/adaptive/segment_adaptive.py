"""Segment one case with ensembles of models: a client of the resident predictor.

The same client as `predict_label_free.py`, whose predictor has the models loaded.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    client = os.path.join(os.path.dirname(__file__), "predict_label_free.py")  # noqa: PTH118, PTH120
    sys.argv[0] = client
    runpy.run_path(client, run_name="__main__")
