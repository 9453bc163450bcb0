"""The similarity classifier: which models and train cases suit a case without a label.

What a model says of its own segmentation, how models agree, the regressor that learns
from calibration cases how good a segmentation is, the weighted ensemble, and who
judges. No training and no sliding window lives here, and nothing here reads a held-out
label before `validation` does.
"""
