"""Who may import what: the laws of the layout, checked on the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "netwatch"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# Who may import a foreign thing: a module, or all of a directory.
ONLY_IN = {
    "bcc": ("kernel/compile.py", "kernel/requirement.py"),
    "ctypes": ("kernel/",),
    "grpclib": ("exporters/",),
    "h2": ("exporters/",),
    "asyncio": ("exporters/",),
    "trio_asyncio": ("exporters/",),
    "google": ("exporters/",),
    "prometheus_client": ("metrics.py",),
    "h11": ("http.py",),
}

# What the core does without: it reads no clock, does no I/O and awaits nothing.
NOT_IN_CORE = {"trio", "time", "os", "subprocess", "select", "threading", "logging", "pathlib"}


def imports(module: str) -> Iterator[str]:
    """Yield the full name of everything that a module imports, wherever it does."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "relative imports hide who depends on whom"
            yield node.module


@pytest.mark.parametrize("module", MODULES)
def test_foreign_things_have_one_importer(module: str) -> None:
    """bcc, ctypes, grpclib, asyncio and their like are imported where the design says, and nowhere else."""
    for name in imports(module):
        allowed = ONLY_IN.get(name.partition(".")[0])
        assert allowed is None or module.startswith(allowed), f"{module} imports {name}"


PURE = ("netwatch.core", "netwatch.errors", "netwatch.ledger", "netwatch.event_ledger")


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("core/")])
def test_the_core_is_pure(module: str) -> None:
    """The core imports nothing that acts, and of netwatch only the core, the errors and the ledgers' amounts."""
    for name in imports(module):
        top = name.partition(".")[0]
        assert top not in NOT_IN_CORE, f"{module} imports {name}"
        if top == "netwatch":
            assert name.startswith(PURE), f"{module} imports {name}"


def test_the_core_awaits_nothing() -> None:
    """No coroutine stands in the core."""
    for module in MODULES:
        if module.startswith("core/"):
            tree = ast.parse((PACKAGE / module).read_text())
            found = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
            assert found == [], module


def test_one_place_catches_everything() -> None:
    """`except Exception` stands once: at the top of cli.py."""
    broad = [module for module in MODULES if "except Exception" in (PACKAGE / module).read_text()]
    broad += [module for module in MODULES if "except (Exception" in (PACKAGE / module).read_text()]
    assert broad == ["cli.py"]
