"""The one exception whose text is written for the user."""


class UserError(Exception):
    """Something the user can mend; the message says what is wrong, and how to."""
