"""What is wrong with a cohort, in the user's words, before anything is trained.

Every check looks at the source files, so that what it says is about a file that the
user has and can mend. nnU-Net's own `verify_dataset_integrity` stops at the first
broken file; here one list holds everything. Reading (`volumes`) is kept apart from the
rules (`intensities`, `labels`, `grids`, `across_cases`).
"""
