"""Objects from files: paths as ``kubectl -f`` takes them, read once and again when they change.

A path is a file, a directory or ``-`` for standard input. Of a directory every ``.yaml``, ``.yml``
and ``.json`` file in it is read, in the order of their names, but not those of its
sub-directories: ``kubectl -f DIR`` is not recursive either. Names that begin with a dot are left
out; they are editors' and Kubernetes' own. Files that are named outright may be called anything.

What did not change is not parsed again: no file, and in a file that changed no document.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, BinaryIO, Final

from kgw._native import manifest
from kgw.diagnostics import Finding, Severity
from kgw.source.memory import Loaded, Origin, RawObject, expand, last_definitions
from kgw.source.sequences import exchanged, part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    findings = _problems(problems, data, file)
    for document in documents:
        origin = Origin(file, document.index, positions=document)
        found, wrong = expand(document.value, origin)
        objects += found
        findings += wrong
    return objects, findings


class Files:
    """A set of paths that remembers what it read, so that only what changed is parsed again.

    Objects of files and documents that did not change are the same Python objects from one `load`
    to the next.
    """

    def __init__(self, paths: Paths | Iterable[Paths]) -> None:
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        self.paths: tuple[str, ...] = tuple(dict.fromkeys(os.fspath(path) for path in several))
        self._files: dict[str, _File] = {}
        self._findings: list[Finding] = []
        self._stdin: _File | None = None
        # How often each object is defined, and how many definitions are not the last ones.
        self._defined: Counter[object] = Counter()
        self._spare = 0

    def __contains__(self, name: str) -> bool:
        """Whether a file was read, by the name that it was read by."""
        return name in self._files

    def load(self, changed: Iterable[str] | None = None) -> Loaded:
        """Reads what changed since the last time and returns everything.

        Args:
            changed: the names of the files that alone may have changed, of those that were read
                before; by default all paths are looked at.
        """
        if changed is None or not self._reread(changed):
            self._look()
        digest = sum(file.share for file in self._files.values())
        digest += sum(hash_of(f"{one.code}{one.message}".encode()) for one in self._findings)
        objects = list(chain.from_iterable(map(attrgetter("objects"), self._files.values())))
        findings = list(self._findings)
        for file in self._files.values():
            if file.problems or file.findings:
                findings += file.problems
                findings += map(file.placed, file.findings)
        if self._spare:
            objects, twice = last_definitions(objects, self._place)
            findings += twice
        place = _Places(dict(self._files))
        whole = digest.to_bytes(32, "big", signed=False)
        return Loaded(objects, findings, tuple(self._files), whole, place)

    def _place(self, origin: Origin | None) -> Origin | None:
        if origin is None or origin.file not in self._files:
            return origin
        return self._files[origin.file].place(origin)

    def _reread(self, changed: Iterable[str]) -> bool:
        """Reads some files again; returns whether that is all that there is to do."""
        for name in changed:
            before = self._files.get(name)
            if before is None or os.path.islink(name):
                return False
            after = _File.read(name, before)
            if after.problems and not after.objects:
                return False
            self._replace(before, after)
            self._files[name] = after
        return True

    def _look(self) -> None:
        """Looks at all paths."""
        files: dict[str, _File] = {}
        self._findings = []
        for path in self.paths:
            if path == STDIN:
                if self._stdin is None:
                    self._stdin = _File.read_stdin()
                files["<stdin>"] = self._stdin
                continue
            try:
                names = files_of(path)
            except OSError as error:
                self._findings.append(_unreadable(path, error))
                continue
            if not names:
                self._findings.append(_empty(path))
            names = [name for name in names if name not in files]
            files |= zip(names, self._read(names), strict=True)
        for name in self._files.keys() | files.keys():
            before, after = self._files.get(name), files.get(name)
            if before is not after:
                self._replace(before, after)
        self._files = files

    def _read(self, names: list[str]) -> Iterator[_File]:
        """Reads files in turn; if many are new, others do so ahead of who takes them.

        To parse takes longer than the rest, and other threads can run meanwhile.
        """
        new = [name for name in names if name not in self._files]
        if len(new) < _MANY:
            yield from (_File.read(name, self._files.get(name)) for name in names)
            return
        from concurrent.futures import ThreadPoolExecutor  # imported where it pays

        with ThreadPoolExecutor(_READERS, "kgw-read") as readers:
            rest = iter(new)
            ahead = deque(readers.submit(_Content.of, name) for name in islice(rest, _AHEAD))
            for name in names:
                if name in self._files:
                    yield _File.read(name, self._files[name])
                    continue
                content = ahead.popleft().result()
                assert content is not None  # there was nothing before
                if (following := next(rest, None)) is not None:
                    ahead.append(readers.submit(_Content.of, following))
                yield _File.of(content)

    def _replace(self, before: _File | None, after: _File | None) -> None:
        """Counts the definitions of one file out and those of another in."""
        old, new = exchanged(before.objects if before else (), after.objects if after else ())
        for one in old:
            self._defined[one.definition] -= 1
            if self._defined[one.definition]:
                self._spare -= 1
            else:
                del self._defined[one.definition]
        for one in new:
            self._spare += one.definition in self._defined
            self._defined[one.definition] += 1


def files_of(path: str) -> list[str]:
    """Returns the files that a path stands for, sorted by name.

    Raises:
        OSError: if the path does not exist or the directory cannot be listed.
    """
    if not stat.S_ISDIR(os.stat(path).st_mode):
        return [path]
    with os.scandir(path) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.endswith(EXTENSIONS)
            and not entry.name.startswith(".")
            and (entry.is_file() or not _is_special(entry.path))
        )
    return [os.path.join(path, name) for name in names]


class _Places:
    """Where documents stand by now, in the files of one moment."""

    def __init__(self, files: Mapping[str, _File]) -> None:
        self._files = files

    def __call__(self, finding: Finding) -> Finding:
        source = finding.source
        file = None if source is None else self._files.get(source.file)
        return finding if file is None else file.placed(finding)


@dataclass(frozen=True, slots=True)
class _Member:
    """A document and the objects in it."""

    document: manifest.Document
    objects: list[RawObject]
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class Standing:
    """The positions of a document that other text stands before."""

    document: manifest.Document
    #: How many lines are before the document's own.
    lines: int

    def locate(self, path: tuple[str | int, ...], key: bool = False) -> tuple[int, int, int] | None:
        """Returns the place of a node in the file."""
        place = self.document.locate(path, key=key)
        return None if place is None else (place[0] + self.lines, *place[1:])

    def line(self, number: int) -> str | None:
        """Returns a line of the file, if it is one of the document's."""
        return self.document.line(number - self.lines) if number > self.lines else None


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file contains, parsed."""

    name: str
    signature: tuple[int, ...] | None
    data: bytes
    text: manifest.Text | None
    """``None`` if the file could not be read."""
    error: OSError | None = None

    @classmethod
    def of(cls, name: str, before: _File | None = None) -> _Content | None:
        """Reads and parses a file; ``None`` if it is as it was *before*."""
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
                return None
            if stat.S_ISREG(status.st_mode) and now - status.st_mtime_ns < _RACY:
                # The file may change again without its times changing: clocks tick coarsely.
                signature = None
            with open(name, "rb") as stream:
                data = _content(stream)
        except OSError as error:
            return cls(name, None, b"", None, error)
        return cls(name, signature, data, manifest.Text(data, before.text if before else None))


class _File:
    """A file as it was read."""

    def __init__(
        self,
        name: str,
        signature: tuple[int, ...] | None,
        digest: bytes,
        text: manifest.Text | None = None,
    ) -> None:
        self.name = name
        self.signature = signature
        """What ``stat`` said; while that is the same the content is. ``None``: read it again."""
        self.digest = digest
        self.share = hash_of(os.fsencode(name) + b"\0" + digest)
        """What the file adds to the digest of all files."""
        self.text = text
        self.members: list[_Member] = []
        self.objects: list[RawObject] = []
        self.problems: list[Finding] = []
        """What is wrong with the text."""
        self.findings: list[Finding] = []
        """What is wrong with documents, where they stood when they were read."""
        # Whether each document has one object.
        self._single = True
        self._numbers: dict[manifest.Document, int] | None = None

    @classmethod
    def read(cls, name: str, before: _File | None) -> _File:
        """Reads a file, or returns *before* if that is what it still contains."""
        content = _Content.of(name, before)
        if content is None:
            assert before is not None
            return before
        return cls.of(content, before)

    @classmethod
    def read_stdin(cls) -> _File:
        """Reads standard input to its end."""
        data = _content(sys.stdin.buffer)
        return cls.of(_Content("<stdin>", None, data, manifest.Text(data)))

    @classmethod
    def of(cls, content: _Content, before: _File | None = None) -> _File:
        """Makes the objects of a file that was *before* another."""
        name, text = content.name, content.text
        if text is None:
            assert content.error is not None
            finding = _unreadable(name, content.error)
            file = cls(name, None, finding.message.encode(errors="replace"))
            file.problems = [finding]
            return file
        if before is not None and before.digest == text.digest:
            before.signature = content.signature
            return before
        file = cls(name, content.signature, text.digest, text)
        file.problems = _problems(text.problems, content.data, name)
        file._parse(before)
        return file

    def _parse(self, before: _File | None) -> None:
        """Makes the objects of the documents that were not there before."""
        assert self.text is not None
        documents = self.text.documents
        known = before.members if before else []
        old = before.text.documents if before and before.text else []
        gone, come = part(old, documents)
        same = {one.document: one for one in known[gone]}
        new = [
            same.get(document) or self._member(number, document)
            for number, document in enumerate(documents[come], come.start)
        ]
        self.members = [*known[: gone.start], *new, *known[gone.stop :]]
        self.findings = list(before.findings) if before else []
        if self.findings or any(one.findings for one in new):
            self.findings = list(chain.from_iterable(map(attrgetter("findings"), self.members)))
        self._single = all(len(one.objects) == 1 for one in new) and (not before or before._single)
        if self._single and before:
            objects = (one.objects[0] for one in new)
            self.objects = [*before.objects[: gone.start], *objects, *before.objects[gone.stop :]]
        else:
            self.objects = list(chain.from_iterable(map(attrgetter("objects"), self.members)))

    def _member(self, number: int, document: manifest.Document) -> _Member:
        origin = self._origin(number, document)
        return _Member(document, *expand(document.value, origin, document))

    def _origin(self, number: int, document: manifest.Document) -> Origin:
        assert self.text is not None
        index, lines = self.text.stand(number)
        return Origin(self.name, index, positions=Standing(document, lines) if lines else document)

    def place(self, origin: Origin) -> Origin:
        """Returns the origin of an object where that stands by now."""
        positions, blind = origin.sighted()
        document = positions.document if isinstance(positions, Standing) else positions
        if self.text is None or not isinstance(document, manifest.Document):
            return origin
        if self._numbers is None:
            self._numbers = {one.document: number for number, one in enumerate(self.members)}
        number = self._numbers.get(document)
        if number is None:
            return origin
        now = replace(self._origin(number, document), prefix=origin.prefix)
        return now.blind() if blind else now

    def placed(self, finding: Finding) -> Finding:
        """Returns a finding with the place where its object stands by now."""
        if finding.source is None:
            return finding
        source = self.place(finding.source)
        return finding if source is finding.source else replace(finding, source=source)


_MOST = 64 << 20
"""The parser's limit; there is no use in reading more than one byte beyond it."""
_CHUNK = 8 << 20
"""Bytes that are read at a time."""
_MANY = 8
"""New files, from which on others than who takes them read them."""
_READERS = 2
"""How many do: together with who takes them they keep two processors busy."""
_AHEAD = 3
"""Files that are read and not yet taken; parsed they take ten times their size."""
_RACY = 50_000_000
"""Nanoseconds; far above the tick of any file system's clock."""


def _content(stream: BinaryIO) -> bytes:
    """Reads a file to its end, or as far as the parser would."""
    parts: list[bytes] = []
    rest = _MOST + 1
    # A buffer of the size of the limit costs more than most files.
    while rest > 0 and (part := stream.read(min(rest, _CHUNK))):
        parts.append(part)
        rest -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def hash_of(data: bytes) -> int:
    """A number of 128 bits; sums of such numbers tell sets apart."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")


def _is_special(name: str) -> bool:
    """Whether an entry of a directory is there and is no file: a directory, a pipe, a device."""
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False  # reading it will say why


def _problems(problems: list[manifest.Problem], data: bytes | str, file: str) -> list[Finding]:
    blind = bool(problems) and _may_hold_a_secret(data)
    return [_problem(problem, file, blind=blind) for problem in problems]


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
