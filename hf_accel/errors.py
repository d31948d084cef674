"""The one exception type that means "the user's input is wrong": the commands print it and exit with code 2."""


class UserError(ValueError):
    """The input is wrong and the message says where, what was got, what was expected and how to mend it."""
