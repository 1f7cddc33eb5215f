"""DirectResponse: an answer that a gateway gives by itself, for rules to refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from kgw.api.base import Model, contradiction, given
from kgw.api.kinds import KGATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class DirectResponseBodyFormat(Model):
    """A body that is made for each request, by the operators of access logs."""

    json_body: dict[str, Any] | None = None
    """The object that it is, with operators such as ``%REQ(:PATH)%`` in its strings."""
    text: _Text | None = None
    """The text that it is, with operators."""
    content_type: str | None = None
    """The ``content-type``; that of JSON or of plain text if nothing is given."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.json_body is None) == (self.text is None):
            message = "exactly one of the fields in [json text] must be set"
            raise contradiction(message, *(() if self.text is None else ("text",)))
        return self


class DirectResponseSpec(Model):
    """What a DirectResponse says."""

    status: Annotated[int, Strict(), Field(ge=200, le=599)]
    """The status."""
    body: _Text | None = None
    """The body as it is; ``%LOCAL_REPLY_BODY%`` for a format."""
    body_format: DirectResponseBodyFormat | None = None
    """A body that is made for each request."""


class DirectResponse(Resource):
    """An answer that a gateway gives by itself."""

    group: ClassVar[str] = KGATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGATEWAY_GROUP}/v1alpha1"
    kind: Literal["DirectResponse"] = "DirectResponse"
    spec: DirectResponseSpec
    """The answer."""

    @classmethod
    def of(
        cls,
        name: str,
        status: int,
        body: str | None = None,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes an answer.

        Args:
            name: its name, which an ``ExtensionRef`` filter of a rule names.
            status: the status, 200 to 599.
            body: the body, of 1 to 4096 characters; none by default.
            namespace: its namespace, which is that of the routes that refer to it.
            labels: its labels.
            annotations: its annotations.
        """
        return cls(
            metadata=ObjectMeta.of(name, namespace, labels, annotations),
            spec=DirectResponseSpec(status=status, **given(body=body)),
        )
