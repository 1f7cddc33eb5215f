"""Changes of listener policies to local replies: what cannot be used of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach import access_logs, native
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from kgw.api import HTTPListenerPolicy, ListenerPolicy
    from kgw.api.gateway.filters import HTTPHeader
    from kgw.api.kgateway.local_replies import LocalReplies, LocalReplyMapper, ReplyBodyFormat
    from kgw.attach.index import Index
    from kgw.attach.policy import PolicyState
    from kgw.source.memory import FieldPath


def check(index: Index, state: PolicyState, policy: HTTPListenerPolicy | ListenerPolicy) -> None:
    """Notes what cannot be used of a policy's changes, wherever in the policy they stand."""
    for settings, path in policy.every_settings():
        replies = settings.local_replies
        if replies is not None:
            _check(index, state, replies, (*path, "localReplies"))


def _check(index: Index, state: PolicyState, replies: LocalReplies, path: FieldPath) -> None:
    def refuse(given: dict[str, Any], where: FieldPath) -> None:
        problem = native.local_replies_error(given)
        if problem is not None:
            message = f"local replies cannot be changed so: {problem}"
            index.report(state.policy, "KGW408", Severity.ERROR, message, where)
            if message not in state.errors:
                state.errors.append(message)

    if replies.default_body_format is not None:
        given = {"body_format": _form(replies.default_body_format)}
        refuse(given, (*path, "defaultBodyFormat"))
    for number, mapper in enumerate(replies.mappers or ()):
        where = (*path, "mappers", number)
        before = len(state.errors)
        access_logs.check_filter(index, state, mapper.filter, (*where, "filter"))
        if len(state.errors) == before:
            refuse({"mappers": [_mapper(mapper)]}, where)


def ir(replies: LocalReplies) -> dict[str, Any]:
    """Changes in the IR."""
    found: dict[str, Any] = {"mappers": [_mapper(one) for one in replies.mappers or ()]}
    if replies.default_body_format is not None:
        found["body_format"] = _form(replies.default_body_format)
    return found


def _mapper(mapper: LocalReplyMapper) -> dict[str, Any]:
    found: dict[str, Any] = {"filter": access_logs.filter_ir(mapper.filter)}
    if mapper.status_code is not None:
        found["status"] = mapper.status_code
    if mapper.body is not None:
        found["body"] = mapper.body
    if mapper.body_format_override is not None:
        found["body_format"] = _form(mapper.body_format_override)
    if mapper.headers is not None:
        found["set"] = _fields(mapper.headers.set)
        found["add"] = _fields(mapper.headers.add)
    return found


def _fields(fields: tuple[HTTPHeader, ...]) -> list[list[str]]:
    return [[one.name, one.value] for one in fields]


def _form(given: ReplyBodyFormat) -> dict[str, Any]:
    body = {"text": given.text} if given.json_body is None else {"json": given.json_body}
    found: dict[str, Any] = {"body": body}
    if given.content_type is not None:
        found["content_type"] = given.content_type
    return found
