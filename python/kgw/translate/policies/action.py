"""What TrafficPolicies say about where requests go and how long they may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kgw.translate.retries import MAX_BACKOFF

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.request_mirror import PolicyRequestMirror
    from kgw.api.kgateway.traffic.retry import RetryPolicy
    from kgw.api.kgateway.traffic.url_rewrite import PolicyURLRewrite
    from kgw.attach.effective import Effective


class ActionSettings(NamedTuple):
    """What policies come to at a place, as far as it is the action's. Can be compared.

    Each counts where the rule says nothing of the kind itself.
    """

    #: The time for a request. Milliseconds; 0 is none.
    request_timeout: int | None = None
    #: The time without a byte. Milliseconds; 0 is none.
    stream_idle: int | None = None
    retry: RetryPolicy | None = None
    url_rewrite: PolicyURLRewrite | None = None
    auto_host_rewrite: bool = False
    mirror: PolicyRequestMirror | None = None

    def put(self, action: dict[str, Any]) -> None:
        """Completes the action of a rule that forwards requests."""
        if self.stream_idle is not None:
            action["stream_idle_timeout_ms"] = self.stream_idle
        if self.auto_host_rewrite:
            action["auto_host_rewrite"] = True
        if self.url_rewrite is not None and self.url_rewrite.path_regex is not None:
            one = self.url_rewrite.path_regex
            action["path_regex"] = {"pattern": one.pattern, "substitution": one.substitution}
        if self.retry is not None and "retry" not in action:
            action["retry"] = _retry(self.retry)
            attempt = self.retry.per_try_timeout
            if attempt is not None and "backend_request_timeout_ms" not in action:
                action["backend_request_timeout_ms"] = int(attempt)

    def mirrored(self, mirror: dict[str, Any]) -> dict[str, Any]:
        """A mirror of a rule, with the host that its copies ask for."""
        if self.mirror is None:
            return mirror
        return {
            **mirror,
            "hostname": self.mirror.host_rewrite_literal,
            "append_shadow": not self.mirror.disable_shadow_host_suffix_append,
        }


_NONE: Final = ActionSettings()


def settings(effective: Effective) -> ActionSettings:
    """The settings of actions at a place. Those of policies in shadow do not count."""
    if not effective.fields:
        return _NONE
    timeouts = effective.value("timeouts")
    return ActionSettings(
        None if timeouts is None or timeouts.request is None else int(timeouts.request),
        None if timeouts is None or timeouts.stream_idle is None else int(timeouts.stream_idle),
        effective.value("retry"),
        effective.value("url_rewrite"),
        bool(effective.value("auto_host_rewrite")),
        effective.value("request_mirror"),
    )


def _retry(retry: RetryPolicy) -> dict[str, Any]:
    backoff = int(retry.backoff_base_interval)
    return {
        "attempts": retry.attempts,
        "on": list(retry.retry_on or ()),
        "codes": list(retry.status_codes or ()),
        "backoff_ms": backoff,
        "max_backoff_ms": MAX_BACKOFF * backoff,
    }
