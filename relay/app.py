"""The running relay."""


class Relay:
    """One relay process."""
