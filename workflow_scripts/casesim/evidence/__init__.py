"""Does the method find what is known, or believed, to be wrong?

May use all stages before it; nothing that decides about a case reads what is here.
"""
