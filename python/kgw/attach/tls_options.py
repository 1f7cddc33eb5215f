"""kgateway's options of a listener's TLS: ``kgateway.dev/...`` in ``tls.options``.

What narrows who may connect and cannot be enforced is an error. What only tunes the handshake and
is not known to the data plane is a warning: its defaults are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.attach import native
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgw.api import Gateway, ListenerSet
    from kgw.attach.index import Index
    from kgw.source.memory import FieldPath

_PREFIX: Final = "kgateway.dev/"

ALPN: Final = f"{_PREFIX}alpn-protocols"
CIPHERS: Final = f"{_PREFIX}cipher-suites"
MIN_VERSION: Final = f"{_PREFIX}min-tls-version"
MAX_VERSION: Final = f"{_PREFIX}max-tls-version"
SUBJECT_ALT_NAMES: Final = f"{_PREFIX}verify-subject-alt-names"

#: Options that choose among curves and algorithms, all of which are safe here.
_TUNING: Final = (f"{_PREFIX}ecdh-curves", f"{_PREFIX}signature-algorithms")

#: An option that only lets some certificates pass.
_HASH: Final = f"{_PREFIX}verify-certificate-hash"

_KNOWN: Final = (ALPN, CIPHERS, MIN_VERSION, MAX_VERSION, SUBJECT_ALT_NAMES)

#: kgateway: no protocol is negotiated.
_NO_ALPN: Final = "allow-empty"

#: The versions of kgateway, those that are served with their order.
_VERSIONS: Final = {"1.0": 0, "1.1": 1, "1.2": 2, "1.3": 3}
_LOWEST: Final = "1.2"


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """What the options ask for."""

    alpn: tuple[str, ...] | None = None
    cipher_suites: tuple[str, ...] = ()
    min_version: str | None = None
    max_version: str | None = None
    subject_alt_names: tuple[str, ...] = ()


class Reader:
    """Reads the options of a listener, reporting on its owner what is wrong with them."""

    def __init__(self, index: Index, owner: Gateway | ListenerSet, path: FieldPath) -> None:
        self._index = index
        self._owner = owner
        self._path = path
        #: Why the listener cannot be served, if so.
        self.error: str | None = None

    def read(self, given: Mapping[str, str]) -> TLSOptions:
        """The options; what is wrong is left out."""
        for name in given:
            if name in _TUNING:
                text = f"`{name}` is not supported by this version of kgw, its defaults are used"
                self._report("KGW501", Severity.WARNING, text, name)
            elif name == _HASH:
                self._fail("KGW501", f"`{name}` is not supported by this version of kgw", name)
            elif name not in _KNOWN:
                near = suggest(name, (*_KNOWN, *_TUNING, _HASH))
                text = f"unknown option `{name}`"
                hint = f"did you mean `{near}`?" if near else None
                self._report("KGW203", Severity.WARNING, text, name, hint=hint, key=True)
        alpn = _words(given.get(ALPN))
        low, high = self._version(given, MIN_VERSION), self._version(given, MAX_VERSION)
        if low is not None and _VERSIONS[low] < _VERSIONS[_LOWEST]:
            text = f"TLS {low} is not served; the lowest version is {_LOWEST}"
            self._report("KGW423", Severity.WARNING, text, MIN_VERSION)
            low = None
        if high is not None and _VERSIONS[high] < _VERSIONS[low or _LOWEST]:
            text = f"no version up to {high} is served; the lowest is {low or _LOWEST}"
            self._fail("KGW423", text, MAX_VERSION)
            high = None
        suites = _words(given.get(CIPHERS))
        problem = native.parameters_error(low, high, suites) if suites else None
        if problem is not None:
            self._fail("KGW423", problem, CIPHERS)
        return TLSOptions(
            alpn=() if alpn == (_NO_ALPN,) else alpn or None,
            cipher_suites=suites,
            min_version=low,
            max_version=high,
            subject_alt_names=_words(given.get(SUBJECT_ALT_NAMES)),
        )

    def unchecked(self) -> None:
        """Reports names to verify where no certificate is asked for."""
        text = f"`{SUBJECT_ALT_NAMES}` needs certificate authorities to verify clients with"
        hint = "give them in `spec.tls.frontend`"
        self._fail("KGW423", text, SUBJECT_ALT_NAMES, hint=hint)

    def _version(self, given: Mapping[str, str], name: str) -> str | None:
        value = given.get(name)
        if value is None or value in _VERSIONS:
            return value
        self._fail("KGW423", f"`{value}` is not a version of TLS", name, legal=", ".join(_VERSIONS))
        return None

    def _fail(
        self,
        code: str,
        message: str,
        name: str,
        *,
        legal: str | None = None,
        hint: str | None = None,
    ) -> None:
        self._report(code, Severity.ERROR, message, name, legal=legal, hint=hint)
        self.error = self.error or message

    def _report(
        self,
        code: str,
        severity: Severity,
        message: str,
        name: str,
        *,
        legal: str | None = None,
        hint: str | None = None,
        key: bool = False,
    ) -> None:
        path = (*self._path, name)
        self._index.report(
            self._owner, code, severity, message, path, legal=legal, hint=hint, key=key
        )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word for part in (text or "").split(",") if (word := part.strip()))
