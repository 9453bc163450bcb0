"""One cell: segment a case with a model, count voxels, tell the overlap.

Uses `nnunet`; knows neither training nor what the scores are for.
"""
