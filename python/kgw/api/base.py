"""What every model of a Kubernetes object shares.

Field names are Python's, aliases Kubernetes' (``backend_refs`` / ``backendRefs``). Models are
frozen. Unknown fields are kept (``model_extra``) and reported by :mod:`kgw.api.parse`, never
dropped.
"""

from __future__ import annotations

import marshal
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Final, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from kgw.diagnostics import Severity

_NAMES: Final[Mapping[str, str]] = {
    "cluster_ip": "clusterIP",
    "cluster_ips": "clusterIPs",
    "consecutive_5xx": "consecutive5xx",
    "enforcing_consecutive_5xx": "enforcingConsecutive5xx",
    "from_": "from",
    "global_": "global",
    "json_body": "json",
    "respect_ttl": "respectTTL",
    "root_ca": "rootCA",
    "simple_tls": "simpleTLS",
    "skip_xff_append": "skipXFFAppend",
    "well_known_ca_certificates": "wellKnownCACertificates",
    "xff_trusted_cidrs": "xffTrustedCIDRs",
}


def kubernetes_name(name: str) -> str:
    """The name that a field has in manifests: ``backendRefs`` for ``backend_refs``.

    An alias of the field itself would be the name that type checkers want for the argument.
    """
    return _NAMES.get(name) or to_camel(name)


class Model(BaseModel):
    """A part of a Kubernetes object."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=kubernetes_name,
        validate_by_name=True,
        validate_by_alias=True,
        # A validator is built when an object comes that needs it. Most models are parts of others,
        # whose validators have them inside; theirs would only cost time at the start.
        defer_build=True,
    )

    #: Fields of the CRD that this version does not act on, with the severity of using one. An
    #: ``ERROR`` makes a policy ``Accepted=False`` and a rule answer 500: what is asked for and not
    #: enforced must not go unnoticed.
    unsupported: ClassVar[Mapping[str, Severity]] = {}

    #: Fields of the object that have no meaning for a proxy.
    ignored: ClassVar[frozenset[str]] = frozenset()


class Remark(NamedTuple):
    """What is to be said about an object that is valid: it becomes a finding.

    One of severity ``ERROR`` is a defect of the object, like a field that is not supported.
    """

    code: str
    severity: Severity
    message: str
    path: tuple[str | int, ...]
    legal: str | None = None
    hint: str | None = None


def contradiction(message: str, *path: str | int) -> PydanticCustomError:
    """Makes the error of a rule between fields, for a validator to raise.

    Args:
        message: what is wrong, in the words of the CRD.
        path: the field at fault, from the model whose validator raises, as manifests name it.
    """
    return PydanticCustomError("contradiction", "{message}", {"message": message, "path": path})


def repeated(items: Iterable[Hashable]) -> int | None:
    """The index of the first item that stands before already, if there is one."""
    seen: set[Hashable] = set()
    for index, item in enumerate(items):
        if item in seen:
            return index
        seen.add(item)
    return None


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are given: not ``None``, and not an empty collection."""
    return {
        name: value for name, value in fields.items() if value is not None and value not in ((), {})
    }


def slim(model: Model) -> None:
    """Lets a model and its parts share with others what pydantic notes about each.

    Which fields were given, and that no others were, is half the memory of a small model. Models
    are frozen, so nobody changes it.
    """
    named, extra = model.__pydantic_fields_set__, model.__pydantic_extra__
    if not extra:
        same = _GIVEN.setdefault(frozenset(named), named)
        object.__setattr__(model, "__pydantic_fields_set__", same)
        if extra is not None:
            object.__setattr__(model, "__pydantic_extra__", _NO_EXTRA)
    values = model.__dict__
    for name in _parts(type(model)):
        if name not in named:
            continue  # a default, which is shared as it is
        value = values[name]
        for part in value if type(value) is tuple else (value,):
            # What has this one already is a part of another object, too.
            if getattr(part, "__pydantic_extra__", _NO_EXTRA) is not _NO_EXTRA:
                slim(part)


@cache
def _parts(model: type[Model]) -> tuple[str, ...]:
    """The fields of a model that hold models."""
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if _nested(field.annotation) is not None)


#: Sets of fields that the models have: as many as there are ways to write an object.
_GIVEN: dict[frozenset[str], set[str]] = {}

_NO_EXTRA: dict[str, Any] = {}


class _Text:
    """The context of a validation of what was read from a text: plain data, as JSON has it."""


TEXT: Final = _Text()
"""The context to validate with what was read from a text; see `shared`."""


def shared() -> WrapValidator:
    """Makes what gives equal parts of objects as one model, or one tuple of them, for `Annotated`.

    What is repeated a hundred thousand times is checked once and takes the memory of one. It is for
    parts that say nothing about the object that they are in, and are the same in most.

    Only what was read from a text is shared (`TEXT`): that its bytes are the same is to say the
    same. What is made in Python may be of any types, and names its fields in two ways.
    """
    known: dict[bytes, Any] = {}

    def validate(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if info.context is not TEXT:
            return handler(value)
        try:
            # In version 2 a value has one form, and values of different types have different ones.
            key = marshal.dumps(value, 2)
        except ValueError:  # it is no plain data after all
            return handler(value)
        found = known.get(key)
        if found is None:
            found = handler(value)
            for one in found if isinstance(found, tuple) else (found,):
                slim(one)
            if len(key) <= _LONGEST_SHARED:
                if len(known) >= _MOST_SHARED:
                    known.clear()
                known[key] = found
        return found

    return WrapValidator(validate)


_LONGEST_SHARED: Final = 1 << 10
"""Bytes of a part, as it is remembered; longer ones are rarely repeated."""

_MOST_SHARED: Final = 1 << 14
"""Parts that are kept for others to be the same: the backends of a large cluster, and more."""


Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]


@cache
def shape(model: type[Model]) -> dict[str, type[Model] | None]:
    """The fields of a model by alias, each with the model of its value (or of its items)."""
    return {
        field.alias or name: _nested(field.annotation) for name, field in model.model_fields.items()
    }


def without_nulls(model: type[Model], value: Any) -> Any:
    """Drops fields that are ``null``: for a Kubernetes object they are as good as absent."""
    if not isinstance(value, dict):
        return value
    fields = shape(model)
    kept = {}
    for key, item in value.items():
        nested = fields.get(key)
        if item is None:
            continue
        if nested is None:
            kept[key] = item
        elif isinstance(item, list):
            kept[key] = [without_nulls(nested, one) for one in item]
        else:
            kept[key] = without_nulls(nested, item)
    return kept


def _nested(annotation: Any) -> type[Model] | None:
    """The model inside ``X | None``, ``tuple[X, ...]`` or ``Annotated[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, tuple, Annotated):
        for argument in typing.get_args(annotation):
            if (found := _nested(argument)) is not None:
                return found
    return None
