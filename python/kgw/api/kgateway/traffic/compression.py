"""Bodies that are compressed on the way."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kgw.api.base import Model, contradiction
from kgw.api.kgateway.traffic.disable import PolicyDisable

CompressionLibrary = Literal["Gzip", "Brotli", "Zstd"]
"""A way of compressing."""

Libraries = Annotated[tuple[CompressionLibrary, ...], Field(min_length=1, max_length=3)]


class BodyCoding(Model):
    """Ways of compressing bodies."""

    libraries: Libraries = ("Gzip",)
    """The ways, the preferred one first."""
    disable: PolicyDisable | None = None
    """Nothing is done, whatever less specific policies say."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if len(set(self.libraries)) != len(self.libraries):
            raise contradiction("libraries must not contain duplicates", "libraries")
        return self


class Compression(Model):
    """What is compressed and decompressed."""

    response_compression: BodyCoding | None = None
    """Answers of text are compressed for clients that take it."""
    request_decompression: BodyCoding | None = None
    """Requests are decompressed for endpoints that cannot."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.response_compression is None and self.request_decompression is None:
            fields = "responseCompression requestDecompression"
            raise contradiction(f"at least one of the fields in [{fields}] must be set")
        return self
