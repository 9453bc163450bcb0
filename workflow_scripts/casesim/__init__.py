"""Similarity of training cases for segmentation: the logic behind the workflow.

Pure Python that knows nothing of Snakemake. Importing the package imports nothing
else, so that the `predict` client starts in milliseconds.
"""
