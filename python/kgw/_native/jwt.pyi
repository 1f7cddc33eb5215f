"""The keys that tokens are signed with."""

__all__ = ["check_keys"]

def check_keys(text: str) -> str | None:
    """Returns what is wrong with a set of keys, a key or PEM; None if it can verify signatures."""
