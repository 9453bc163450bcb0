"""All that touches nnU-Net's own formats: plans, preprocessed cases, checkpoints.

Knows no stage of the workflow. Nothing else may read or write these formats.
"""
