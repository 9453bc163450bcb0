"""Which cases an arm leaves out, and what the models trained without them do.

Uses `similarity`. What is imported when the workflow is parsed is the standard library
only.
"""
