"""The page that shows the matrix, a cell's images and the case to decide on.

What the page holds is made here, from the results of all stages; how it looks and
answers is in `page/`, in files of its own. Nothing is computed here that a table should
hold.
"""
