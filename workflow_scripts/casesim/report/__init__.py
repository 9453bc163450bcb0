"""What people look at: the figures, one module for each, and the summary of a run.

Uses all stages; none of them uses it. Nothing that a table should hold is computed
here.
"""
