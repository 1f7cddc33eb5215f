"""Retries of an HTTPRoute's rule (GEP-1731)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, Strict, model_validator

from kgw.api.base import Model, contradiction, given, repeated
from kgw.api.duration import Duration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

#: The status of a failure.
Code = Annotated[int, Strict(), Field(ge=400, le=599)]


class Retry(Model):
    """When a request is sent once more.

    That is when a backend cannot be connected to, is lost before it answers, takes longer than
    `timeouts.backendRequest`, or answers with one of the codes.
    """

    codes: tuple[Code, ...] = ()
    """The statuses of answers that are not passed on while there is a retry left."""
    attempts: Annotated[int, Strict(), Field(ge=1)] | None = None
    """How many times a request is sent again at most; by default once."""
    backoff: Duration | None = None
    """The least time before a request is sent again; by default 25 ms. It grows with each retry."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        twice = repeated(self.codes)
        if twice is not None:
            raise contradiction(f"Duplicate value: {self.codes[twice]}", "codes", twice)
        return self

    @classmethod
    def of(
        cls,
        attempts: int | None = None,
        *,
        codes: Iterable[int] = (),
        backoff: str | timedelta | None = None,
    ) -> Self:
        """Makes retries.

            Retry.of(3, codes=[502, 503], backoff="100ms")

        Args:
            attempts: how many times a request is sent again at most.
            codes: the statuses of answers that are not passed on while there is a retry left.
            backoff: the least time before a request is sent again.
        """
        wait = None if backoff is None else Duration(backoff)
        return cls(**given(attempts=attempts, codes=tuple(codes), backoff=wait))
