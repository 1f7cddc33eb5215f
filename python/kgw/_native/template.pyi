"""Templates of transformations, before the engine is to render them."""

__all__ = ["check", "variables"]

def check(text: str) -> str | None:
    """What is wrong with a template, with the line, or None."""

def variables(text: str) -> list[str]:
    """The variables of a JSON body that a template uses, in order; none of what is no template."""
