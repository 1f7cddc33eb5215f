"""Findings: what is wrong with a configuration, where, and what would be right.

Everything that reads a configuration reports findings instead of raising: one broken object never
hides the others. A finding has a stable code, and `CODES` says what each code means.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.source.memory import FieldPath, Location, Origin

__all__ = [
    "CODES",
    "Finding",
    "Severity",
    "format_path",
    "render",
    "render_all",
    "sort",
    "suggest",
    "summary",
]


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """The object, or the part that is named, does not work as written."""
    WARNING = "warning"
    """It works, but probably not as meant."""
    INFO = "info"
    """Worth knowing."""


_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with, or worth knowing about, a configuration."""

    code: str
    """The stable code, a key of `CODES`."""
    severity: Severity
    message: str
    """What is wrong, in one sentence without a full stop."""
    resource: str | None = None
    """The object, as in ``HTTPRoute default/ollama``."""
    path: FieldPath = ()
    """The field, from the object's root."""
    legal: str | None = None
    """What is legal here."""
    hint: str | None = None
    """What to do, as in ``did you mean `matches`?``."""
    source: Origin | None = None
    """Where the object came from."""
    key: bool = False
    """Whether the name of the field is at fault (an unknown field) rather than its value."""

    @property
    def field(self) -> str:
        """The path as text, as in ``spec.rules[0].matches``; empty for the whole object."""
        return format_path(self.path)

    @property
    def location(self) -> Location | None:
        """Where to look in the file, if the object came from one."""
        return None if self.source is None else self.source.locate(self.path, key=self.key)

    def sort_key(self) -> tuple[Any, ...]:
        """Orders findings as one reads: by file and place, the worse first where they share one."""
        location = self.location
        place = (0, 0) if location is None else (location.line, location.column)
        return (
            self.source is None,
            "" if self.source is None else self.source.file,
            *place,
            self.resource or "",
            _RANK[self.severity],
            self.code,
            self.field,
            self.message,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as JSON data; members without a value are left out."""
        members: dict[str, Any] = {
            "code": self.code,
            "severity": str(self.severity),
            "message": self.message,
            "resource": self.resource,
            "field": self.field or None,
            "legal": self.legal,
            "hint": self.hint,
        }
        if self.source is not None:
            members["file"] = self.source.file
            if (location := self.location) is not None:
                members["line"] = location.line
                members["column"] = location.column
                members["endColumn"] = location.end_column
        return {name: value for name, value in members.items() if value is not None}

    def __str__(self) -> str:
        """Returns one line: place, severity, code and message."""
        where = [] if self.source is None else [self.source.describe(self.path, key=self.key)]
        what = [f"{self.resource}"] if self.resource else []
        return ": ".join([*where, *what, f"{self.severity}[{self.code}]", self.message])


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """Returns the findings in reading order, each once."""
    return sorted(dict.fromkeys(findings), key=Finding.sort_key)


def format_path(path: FieldPath) -> str:
    """Returns a path as text: ``spec.rules[0].matches``; odd keys are quoted in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            quoted = step.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{quoted}"]'
    return text


_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


# === Rendering ===


def render(finding: Finding, *, color: bool = False) -> str:
    """Returns a finding the way compilers print one: the place, the line, a mark under it.

    ```text
    error[KGW203]: unknown field `match`
      --> routes.yaml:12:5
       |
    12 |     match:
       |     ^^^^^
       = resource: HTTPRoute default/ollama, field spec.rules[0].match
       = help: did you mean `matches`?
    ```

    Args:
        finding: what to show.
        color: whether to use ANSI colours; the caller knows its terminal and ``NO_COLOR``.
    """
    paint = _paint if color else _plain
    loud = _LOUD[finding.severity]
    lines = [
        paint(f"{finding.severity}[{finding.code}]", loud)
        + paint(f": {_printable(finding.message)}", "1")
    ]
    location = finding.location
    gutter = 1 if location is None else len(str(location.line))
    edge = " " * gutter + " |"
    if finding.source is not None:
        where = finding.source.describe(finding.path, key=finding.key)
        lines.append(" " * gutter + paint("-->", _EDGE) + f" {where}")
        if location is not None:
            lines += _snippet(finding.source, location, paint, loud, edge)
    named = [finding.resource] if finding.resource else []
    if finding.path:
        named.append(f"field {finding.field}")
    notes = [("resource", ", ".join(named)), ("legal", finding.legal), ("help", finding.hint)]
    bullet = " " * gutter + " ="
    lines += [
        f"{paint(bullet, _EDGE)} {paint(name, '1')}: {_printable(text)}"
        for name, text in notes
        if text
    ]
    return "\n".join(lines)


def render_all(findings: Iterable[Finding], *, color: bool = False) -> str:
    """Returns all findings in reading order, with a summary line at the end."""
    ordered = sort(findings)
    return "\n\n".join([*(render(finding, color=color) for finding in ordered), summary(ordered)])


def summary(findings: Iterable[Finding]) -> str:
    """Returns the count of each severity: ``2 errors, 1 warning``."""
    severities = [finding.severity for finding in findings]
    counts = [(severities.count(severity), severity) for severity in Severity]
    parts = [_counted(number, severity) for number, severity in counts if number]
    return ", ".join(parts) or "no findings"


def _counted(number: int, severity: Severity) -> str:
    plural = "" if number == 1 or severity is Severity.INFO else "s"
    return f"{number} {severity}{plural}"


def _snippet(source: Origin, location: Location, paint: Any, loud: str, edge: str) -> list[str]:
    """Returns the source line and the mark under it, a long line cut around the mark."""
    text = source.line(location.line)
    if text is None:
        return []
    start = location.column - 1
    width = max(1, location.end_column - location.column)
    cut = max(0, start - _WIDTH // 2) if len(text) > _WIDTH else 0
    shown = text[cut : cut + _WIDTH]
    width = min(width, max(1, len(shown) - (start - cut)))
    before = shown[: start - cut]
    # Tabs stay tabs under tabs, and a wide character takes two columns, so that the mark is right.
    indent = "".join("\t" if c == "\t" else " " * _columns(c) for c in before)
    mark = "^" * max(1, sum(map(_columns, shown[start - cut : start - cut + width])))
    lead = "…" if cut else ""
    tail = "…" if cut + _WIDTH < len(text) else ""
    shown = _printable(shown)
    number = f"{location.line} |"
    return [
        paint(edge, _EDGE),
        f"{paint(number, _EDGE)} {lead}{shown}{tail}".rstrip(),
        f"{paint(edge, _EDGE)} {' ' * len(lead)}{indent}{paint(mark, loud)}",
    ]


def _printable(text: str) -> str:
    """Returns text that cannot steer a terminal: a manifest may hold escape sequences."""
    if text.isprintable():
        return text
    return "".join(c if c == "\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _columns(character: str) -> int:
    """How many terminal columns a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _plain(text: str, _style: str) -> str:
    return text


def _paint(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m"


_EDGE = "1;34"
_LOUD = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.INFO: "1;36"}
_WIDTH = 120


# === Did you mean ===


def suggest(word: str, candidates: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Returns the candidate most like *word*, or ``None`` if none is near.

    Case, ``-`` and ``_`` do not count: ``rate_limit`` is ``rateLimit``.

    Args:
        word: what was written.
        candidates: what may have been meant.
        cutoff: how alike the two must be, from 0 (in nothing) to 1 (in all).
    """
    names: dict[str, str] = {}
    for candidate in candidates:
        names.setdefault(_fold(candidate), candidate)
    folded = _fold(word)
    if folded in names:
        return None if names[folded] == word else names[folded]
    near = difflib.get_close_matches(folded, names, n=1, cutoff=cutoff)
    return names[near[0]] if near else None


def _fold(word: str) -> str:
    return re.sub(r"[-_\s]", "", word).casefold()


# === The codes ===

CODES: dict[str, str] = {
    # 1xx: syntax, and what keeps a file from being read at all.
    "KGW101": "the file cannot be read",
    "KGW102": "the file is not UTF-8",
    "KGW103": "the text is not well-formed YAML or JSON",
    "KGW104": "a mapping has the same key twice",
    "KGW105": "an alias names an anchor that the document does not have",
    "KGW106": "the text is over a limit: its size, its nesting, or what its aliases expand to",
    "KGW107": "a mapping key is not a string",
    "KGW108": "a mapping key is read as something else than its text",
    "KGW109": "a tag or value has no JSON form",
    "KGW110": "no manifest was found",
    # 2xx: schema.
    "KGW201": "the document is not an object with `apiVersion` and `kind`",
    "KGW202": "the object has no name",
    "KGW203": "the field is not known to the kind",
    "KGW204": "a required field is missing",
    "KGW205": "the value has the wrong type",
    "KGW206": "the value is not one of the legal ones",
    "KGW207": "the value does not have the required form",
    "KGW208": "fields contradict each other, or a rule of the kind's definition does not hold",
    "KGW209": "the kind is not read by kgw",
    "KGW210": "the version of the kind is not read by kgw",
    "KGW211": "the kind, or its group, is misspelled or belongs to another group",
    "KGW212": "the kind, version or field is only in the experimental channel",
    # 3xx: references.
    "KGW301": "the object is defined more than once; the last definition is used",
    "KGW302": "the target of a policy does not exist",
    "KGW303": "the target of a policy does not have the section",
    "KGW304": "a policy has no target, or its selectors select nothing",
    "KGW305": "the parent of a route or ListenerSet does not exist",
    "KGW306": "the parent of a route does not have the section or port",
    "KGW307": "a backend does not exist, or does not have the port",
    "KGW308": "a reference into another namespace is not permitted by a ReferenceGrant",
    "KGW309": "an object of this kind cannot be referred to here",
    "KGW310": "the class of a Gateway is not one that kgw serves",
    "KGW311": "the waypoint that a label names does not exist or does not accept the service",
    "KGW312": "a Secret or ConfigMap that is referred to does not exist",
    "KGW313": "a Secret or ConfigMap does not hold a certificate, key or CA that can be used",
    "KGW314": "an object with parameters for a Gateway does not exist",
    # 4xx: semantics.
    "KGW401": "no listener of the Gateway allows the route",
    "KGW402": "no hostname of the route is one of the listener's",
    "KGW403": "hostnames have no effect on a route whose parent is a Service",
    "KGW404": "listeners of a Gateway, or of its ListenerSets, conflict",
    "KGW405": "the address of a listener is taken by another Gateway",
    "KGW406": "a regular expression cannot be used",
    "KGW407": "a header field may not be modified",
    "KGW408": "an access log format cannot be used",
    "KGW409": "anyone who can reach a waypoint on a wildcard address can forge an identity",
    "KGW410": "the Service is not served by a waypoint, so the route has no effect",
    "KGW411": "a policy has no effect: others on the same target have precedence",
    "KGW412": "a waypoint needs a listener of protocol istio.io/PROXY, and only that",
    "KGW413": "a setting has no effect where it is",
    "KGW417": "an address that a Gateway asks for cannot be had",
    "KGW418": "the Gateway does not allow ListenerSets of the namespace",
    "KGW420": "a route has no effect: another one has precedence for the same traffic",
    "KGW421": "no port of the Service carries what the route is for",
    "KGW422": "HTTP is sent to a port that is declared to carry something else",
    "KGW423": "a TLS option cannot be used",
    "KGW424": "clients without a valid certificate are let in",
    "KGW425": "a path of a redirect or rewrite cannot be used",
    "KGW426": "a rule answers by itself, and something else is to answer as well",
    "KGW427": "a backend that is whichever host a request names cannot be used like this",
    "KGW430": "a policy refers to an extension that cannot be used",
    "KGW431": "a Secret or ConfigMap does not have what a policy wants of it",
    "KGW432": "an annotation about policies, routes or delegation cannot be read",
    "KGW433": "requests cannot be handed on to a route: in a circle, too often, or to hostnames",
    "KGW440": "an access list cannot be used",
    "KGW441": "users or API keys of a policy cannot be used",
    "KGW450": "a condition of a policy cannot be used",
    "KGW451": "the keys of an issuer of tokens cannot be used",
    "KGW460": "a template of a policy cannot be used",
    "KGW461": "a template asks for what is not there",
    "KGW480": "the time to live of names is not known",
    "KGW481": "a curve or an algorithm of signatures is not supported",
    "KGW482": "a file of TLS cannot be read",
    # 5xx: unsupported.
    "KGW501": "the field is not supported by this version",
    "KGW502": "the filter is not supported by this version",
    "KGW503": "the listener's protocol is not supported by this version",
    "KGW504": "the protocol of a service's port is not supported by this version",
    "KGW506": "endpoints of this kind are not supported by this version",
    "KGW507": "an operator in a header value is not expanded by this version",
    # 6xx: migration.
    "KGW601": "the kind or field has a successor",
    "KGW602": "the field has no meaning any more",
    "KGW603": "what has a successor cannot be rewritten where it stands",
    "KGW604": "no later version of kgateway has this",
}
"""One line for each code. A code never changes its meaning and is never used again."""
