"""What a process tree used, and how busy the machine was with everything else. Linux only."""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")


def _read(path: str) -> str:
    """Returns a file's text; that of a process that ended meanwhile is empty."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def tree(root: int) -> list[int]:
    """Returns a process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


@dataclass(frozen=True)
class Cpu:
    """Processor time. Seconds."""

    total: float = 0.0
    """The scheduler's own count, exact to the nanosecond."""
    user: float = 0.0
    """Ticks: a hundredth of a second each, so of use only as a share."""
    system: float = 0.0

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.total - other.total, self.user - other.user, self.system - other.system)

    @property
    def system_share(self) -> float:
        """How much of it the kernel used, from 0 to 1."""
        ticks = self.user + self.system
        return self.system / ticks if ticks > 0 else 0.0


def cpu(pids: list[int]) -> Cpu:
    """Returns what the threads of processes have used since they started.

    Each thread has its nanoseconds in ``schedstat``. A kernel without it counts in ticks.
    """
    total = user = system = 0.0
    for pid in pids:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 13:
            continue
        user += int(fields[11]) / _TICKS
        system += int(fields[12]) / _TICKS
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            text = _read(f"/proc/{pid}/task/{thread}/schedstat")
            total += int(text.split()[0]) / 1e9 if text else 0.0
    return Cpu(total or user + system, user, system)


@dataclass(frozen=True)
class Memory:
    """Memory of a process tree. KiB."""

    resident: int
    peak: int
    """The most that was ever resident."""
    proportional: int
    """Resident, with shared pages counted once."""


def memory(pids: list[int]) -> Memory:
    """Returns what processes hold."""
    sums = {"VmRSS": 0, "VmHWM": 0, "Pss": 0}
    for pid in pids:
        for file in ("status", "smaps_rollup"):
            for line in _read(f"/proc/{pid}/{file}").splitlines():
                name, _, value = line.partition(":")
                if name in sums:
                    sums[name] += int(value.split()[0])
    return Memory(sums["VmRSS"], sums["VmHWM"], sums["Pss"])


@dataclass(frozen=True)
class Machine:
    """Seconds of all cores since the machine started."""

    busy: float
    steal: float
    """What the hypervisor gave to others."""

    def __sub__(self, other: Machine) -> Machine:
        return Machine(self.busy - other.busy, self.steal - other.steal)


def machine() -> Machine:
    """Returns how busy all cores were."""
    ticks = [int(field) for field in _read("/proc/stat").splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = ticks
    return Machine((user + nice + system + irq + softirq) / _TICKS, steal / _TICKS)
