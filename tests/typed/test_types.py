"""kgw as the type checkers of those who install it see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Type checkers take their time on a busy machine, the first time above all.
pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).with_name("program.py")
PACKAGE = Path(__file__).parents[2] / "python" / "kgw"

FIRST_RUN = 120.0
"""Seconds that pyright may take to fetch itself."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which kgw is installed as from a wheel, without what a checkout adds."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(PACKAGE, packages / "kgw", ignore=ignored)
    # What kgw depends on is where the tests have it.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copy(PROGRAM, environment / "program.py")
    return environment


def pyright(*arguments: str | Path, at: Path) -> tuple[int, str]:
    """Runs pyright in an environment; skips the test where it cannot run."""
    pytest.importorskip("pyright", reason="pyright is in the lint group")
    command = [sys.executable, "-m", "pyright"]
    path = f"{at / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(at)}
    # The first run fetches what it is made of, from npm.
    first = [*command, "--version"]
    try:
        subprocess.run(first, capture_output=True, check=True, env=variables, timeout=FIRST_RUN)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        # mypy looks at the same program in any case.
        pytest.skip("pyright cannot run here: it needs Node.js, and npm for its first run")
    result = subprocess.run(
        [*command, *arguments], cwd=at, capture_output=True, text=True, check=False, env=variables
    )
    return result.returncode, result.stdout


def test_a_strict_program_is_clean(installed: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is in the lint group")
    # Without a configuration file nothing of this project's own settings helps.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "program.py"]
    python = f"--python-executable={installed / 'bin' / 'python'}"
    result = subprocess.run(
        [*command, python], cwd=installed, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_pyright_agrees(installed: Path) -> None:
    code, output = pyright("program.py", at=installed)
    assert code == 0, output


def test_the_types_of_all_public_names_are_complete(installed: Path) -> None:
    # What pydantic and others leave open is theirs.
    code, output = pyright("--verifytypes", "kgw", "--ignoreexternal", at=installed)
    assert "Type completeness score: 100%" in output, output
    assert code == 0, output
