"""Objects from files: paths as ``kubectl -f`` takes them, read once and again when they change.

A path is a file, a directory or ``-`` for standard input. Of a directory every ``.yaml``, ``.yml``
and ``.json`` file in it is read, in the order of their names, but not those of its
sub-directories: ``kubectl -f DIR`` is not recursive either. Names that begin with a dot are left
out; they are editors' and Kubernetes' own. Files that are named outright may be called anything.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw._native import manifest
from kgw.diagnostics import Finding, Severity
from kgw.source.memory import Loaded, Origin, RawObject, expand, last_definitions

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EXTENSIONS", "STDIN", "Files", "load", "parse_text"]

EXTENSIONS = (".json", ".yaml", ".yml")
"""What a file in a directory must end in to be read, as for ``kubectl``."""
STDIN = "-"
"""The path that stands for standard input."""

Paths = str | os.PathLike[str]

_SECRET: Final = re.compile(r"\bSecret(List)?\b")
#: What a problem quotes is part of a value, whatever that holds itself; but for names of keys.
_QUOTED: Final = re.compile(r"`.*`", re.DOTALL)
_ABOUT_KEYS: Final = frozenset({"KGW104", "KGW108"})


def load(paths: Paths | Iterable[Paths]) -> Loaded:
    """Reads files and directories.

    Never raises for what it finds there: a file that cannot be read, and whatever is wrong in
    one, is a finding, and everything else is loaded all the same. Of several definitions of one
    object the last is used, as if the files were applied one after the other.
    """
    return Files(paths).load()


def parse_text(data: bytes | str, file: str) -> tuple[list[RawObject], list[Finding]]:
    """Returns the objects in a text and what is wrong with it; *file* is how it is called."""
    documents, problems = manifest.parse(data)
    objects: list[RawObject] = []
    blind = bool(problems) and _may_hold_a_secret(data)
    findings = [_problem(problem, file, blind=blind) for problem in problems]
    for document in documents:
        origin = Origin(file, document.index, positions=document)
        found, wrong = expand(document.value, origin)
        objects += found
        findings += wrong
    return objects, findings


class Files:
    """A set of paths that remembers what it read, so that only changed files are parsed again.

    Objects of files that did not change are the same Python objects from one `load` to the next.
    """

    def __init__(self, paths: Paths | Iterable[Paths]) -> None:
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        self.paths = tuple(dict.fromkeys(os.fspath(path) for path in several))
        self._files: dict[str, _File] = {}
        self._stdin: _File | None = None

    def load(self) -> Loaded:
        """Reads what changed since the last time and returns everything."""
        files: dict[str, _File] = {}
        findings: list[Finding] = []
        for path in self.paths:
            if path == STDIN:
                if self._stdin is None:
                    self._stdin = _File.read_stdin()
                files["<stdin>"] = self._stdin
                continue
            try:
                names = files_of(path)
            except OSError as error:
                findings.append(_unreadable(path, error))
                continue
            if not names:
                findings.append(_empty(path))
            for name in names:
                if name not in files:
                    files[name] = _File.read(name, self._files.get(name))
        self._files = files
        digest = hashlib.blake2b(digest_size=16)
        objects: list[RawObject] = []
        for name, file in files.items():
            digest.update(os.fsencode(name) + b"\0" + file.digest)
            objects += file.objects
            findings += file.findings
        for finding in findings:
            digest.update(f"{finding.code}{finding.message}".encode(errors="replace"))
        kept, twice = last_definitions(objects)
        return Loaded(kept, findings + twice, tuple(files), digest.digest())


def files_of(path: str) -> list[str]:
    """Returns the files that a path stands for, sorted by name.

    Raises:
        OSError: if the path does not exist or the directory cannot be listed.
    """
    if not stat.S_ISDIR(os.stat(path).st_mode):
        return [path]
    names = sorted(
        name for name in os.listdir(path) if name.endswith(EXTENSIONS) and not name.startswith(".")
    )
    whole = (os.path.join(path, name) for name in names)
    return [name for name in whole if not _is_special(name)]


@dataclass(slots=True)
class _File:
    """A file as it was read."""

    signature: tuple[int, ...] | None
    """What ``stat`` said; while that is the same the content is. ``None``: read it again."""
    digest: bytes
    objects: list[RawObject]
    findings: list[Finding]

    @classmethod
    def read(cls, name: str, before: _File | None) -> _File:
        """Reads a file, or returns *before* if that is what it still contains."""
        try:
            now = time.time_ns()
            status = os.stat(name)
            signature: tuple[int, ...] | None = (
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            if not stat.S_ISREG(status.st_mode):
                # A pipe gives its content once.
                signature = (status.st_dev, status.st_ino)
            if before is not None and before.signature == signature and signature is not None:
                return before
            if stat.S_ISREG(status.st_mode) and now - status.st_mtime_ns < _RACY:
                # The file may change again without its times changing: clocks tick coarsely.
                signature = None
            with open(name, "rb") as stream:
                data = stream.read(_MOST + 1)
        except OSError as error:
            finding = _unreadable(name, error)
            return cls(None, finding.message.encode(errors="replace"), [], [finding])
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if before is not None and before.digest == digest:
            before.signature = signature
            return before
        return cls(signature, digest, *parse_text(data, name))

    @classmethod
    def read_stdin(cls) -> _File:
        """Reads standard input to its end."""
        data = sys.stdin.buffer.read(_MOST + 1)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return cls(None, digest, *parse_text(data, "<stdin>"))


_MOST = 64 << 20
"""The parser's limit; there is no use in reading more than one byte beyond it."""
_RACY = 50_000_000
"""Nanoseconds; far above the tick of any file system's clock."""


def _is_special(name: str) -> bool:
    """Whether an entry of a directory is there and is no file: a directory, a pipe, a device."""
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False  # reading it will say why


def _problem(problem: manifest.Problem, file: str, *, blind: bool) -> Finding:
    severity = Severity.WARNING if problem.warning else Severity.ERROR
    origin = Origin(file, problem.document, positions=problem)
    message = problem.message
    if blind:
        origin = origin.blind()
        if problem.code not in _ABOUT_KEYS:
            message = _QUOTED.sub("`…`", message)
    return Finding(problem.code, severity, message, hint=problem.hint, source=origin)


def _may_hold_a_secret(data: bytes | str) -> bool:
    """Whether a text names the kind Secret: of one with mistakes nobody knows what is what."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    return _SECRET.search(text) is not None


def _unreadable(path: str, error: OSError) -> Finding:
    reason = error.strerror or type(error).__name__
    message = f"`{path}` cannot be read: {reason.lower()}"
    return Finding("KGW101", Severity.ERROR, message, source=Origin(path))


def _empty(path: str) -> Finding:
    return Finding(
        "KGW110",
        Severity.WARNING,
        f"there is no manifest in `{path}`",
        legal="files whose names end in .yaml, .yml or .json; sub-directories are not read",
        source=Origin(path),
    )
