"""From the user's files to a checked cohort: sources, selection, checks, import.

Knows no other stage, and nothing of nnU-Net but the folder layout of its raw data. What
is imported when the workflow is parsed is the standard library only.
"""
