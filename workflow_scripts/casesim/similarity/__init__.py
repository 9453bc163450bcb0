"""The similarity matrix: its tree, its clusters, the worst one, and how sure that is.

Uses the tables of `inference.overlap`; knows nothing of images, models or removals.
"""
