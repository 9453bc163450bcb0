"""What lives beside the jobs: devices, the resident predictor, the warm process.

They start the work of other rooms by name. The clients among them import the standard
library only, and little of that: thousands of jobs start with them.
"""
