"""Conditions on requests, in the Common Expression Language."""

__all__ = ["check"]

def check(text: str, *, log: bool = False) -> str | None:
    """Returns what is wrong with a condition; None if nothing is.

    Args:
        text: the expression.
        log: whether it is for access logs, which know more than filters of requests.
    """
