"""Readers of the folders that cases come in: a module for each format.

Each `read` takes the `cohort` section of the config and lists what the folder holds,
from file names and `dataset.json` alone; what is chosen of it is not decided here.
"""
