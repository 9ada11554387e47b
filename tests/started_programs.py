"""The programs that Python sources start by name, read from the sources themselves.

Law: nothing is imported or run. A command whose first word cannot be read (a parameter, a file that was compiled) is
reported as unknown, so that whoever adds one has to say what it is: `test_programs.py` holds what is known of those.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

PYTHON = "python3"  # sys.executable is Debian's
UNKNOWN = "?"

# Functions that start a program; of each the first argument is the command, or the program's name.
_STARTERS = {"run", "Popen", "call", "check_call", "check_output", "run_process", "create_subprocess_exec", "system"}
_STARTERS |= {"execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp"}
_MODULES = {"subprocess", "os", "trio", "asyncio"}
# Programs that run the program that follows their options, here always written as one word, --option=value.
_PREFIXES = {"nsenter", "unshare", "setpriv", "env", "timeout", "prlimit"}
_SHELL_BUILTINS = {"cd", "echo", "exec", "exit", "read", "test", "trap", "wait"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen
class Start:
    """A place that starts a program."""

    place: str
    program: str


@attrs.frozen
class Scope:
    """Where a name is looked up: in the innermost function, then in the module."""

    module: ast.Module
    function: _Function | None

    def assigned(self, name: str) -> list[ast.expr]:
        """Return what the name may stand for."""
        found = list(_assigned(self.function, name)) if self.function else []
        return found or list(_assigned(self.module, name))


@attrs.frozen
class Sources:
    """Modules by path, and what names stand for in each."""

    trees: dict[str, ast.Module]

    @classmethod
    def read(cls, root: Path, directories: Iterable[str]) -> Sources:
        """Read all modules of some directories."""
        paths = sorted(path for directory in directories for path in (root / directory).rglob("*.py"))
        return cls({str(path.relative_to(root)): ast.parse(path.read_text()) for path in paths})

    def starts(self) -> Iterator[Start]:
        """Yield each program that is started, and where."""
        for path, tree in self.trees.items():
            for call, scope in _calls(tree):
                if (command := _command_of(call)) is not None:
                    for program in dict.fromkeys(self._programs(scope, command)):
                        yield Start(path, program if program != UNKNOWN else f"{UNKNOWN} {ast.unparse(command)}")

    def _programs(self, scope: Scope, command: ast.expr) -> Iterator[str]:
        """Yield the program that a command starts, and the one that it runs in its turn."""
        match command:
            case ast.List() | ast.Tuple():
                yield from self._words(scope, command.elts)
            case _ if (word := self._word(command)) is not None:
                yield word
            case _:
                values = list(self._values(scope, command))
                for value in values:
                    yield from self._programs(scope, value)
                if not values:
                    yield UNKNOWN

    def _words(self, scope: Scope, words: list[ast.expr]) -> Iterator[str]:
        for number, expression in enumerate(words):
            if isinstance(expression, ast.Starred):
                if isinstance(expression.value, ast.Name) and expression.value.id == "prefix":
                    continue  # read where it is given, `prefix=(…)`
                # A prefix, if it says so or cannot be read: what follows it is started as well.
                programs = list(self._programs(scope, expression.value))
                yield from programs
                if programs and programs[-1] not in _PREFIXES | {UNKNOWN}:
                    return
            elif not (word := self._word(expression) or UNKNOWN).startswith("-"):
                yield word
                if word == "sh":
                    yield from self._script(scope, words[number + 1 :])
                if word not in _PREFIXES:
                    return

    def _script(self, scope: Scope, words: list[ast.expr]) -> Iterator[str]:
        """Yield the first word of each command of a script of one line, `sh -c SCRIPT`; a file speaks for itself."""
        match words:
            case [ast.Constant(value="-c"), script, *_]:
                is_text = isinstance(script, ast.Constant | ast.JoinedStr)
                for value in [script] if is_text else self._values(scope, script):
                    # Whatever a replacement field stands for is no command.
                    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
                    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "FIELD" for part in parts)
                    commands = (command.split()[0] for command in text.replace("&&", ";").split(";"))
                    yield from (command for command in commands if command not in _SHELL_BUILTINS)

    def _word(self, expression: ast.expr) -> str | None:
        match expression:
            case ast.Constant(value=str(word)):
                return word
            case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if start.startswith("-"):
                return start
            case ast.Attribute(value=ast.Name("sys"), attr="executable"):
                return PYTHON
        return None

    def _values(self, scope: Scope, expression: ast.expr) -> Iterator[ast.expr]:
        """Yield what a name, an attribute, a call's result or an alternative may be, as far as a source says it."""
        match expression:
            case ast.IfExp(body=one, orelse=other):
                yield from (one, other)
            case ast.BinOp(left=left):
                yield left
            case ast.Name(id=name):
                yield from scope.assigned(name)
            case ast.Call(func=ast.Name(id=name)):
                yield from _returned(scope.module, name)
            case ast.Attribute(attr=name) | ast.Call(func=ast.Attribute(attr=name)):
                of_self = list(_assigned(scope.module, name, of_self=True))
                yield from of_self
                if not of_self:
                    # Of another class: any that has it.
                    for tree in self.trees.values():
                        yield from _returned(tree, name)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, Scope]]:
    # Breadth first: of nested functions the innermost comes last.
    scopes = {id(node): Scope(tree, None) for node in ast.walk(tree)}
    for function in ast.walk(tree):
        if isinstance(function, _Function):
            scopes |= {id(node): Scope(tree, function) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, scopes[id(node)]


def _command_of(call: ast.Call) -> ast.expr | None:
    """Return the command that a call starts; None where it starts none."""
    for keyword in call.keywords:
        # A command that runs another; text is what tempfile takes.
        if keyword.arg == "prefix" and not isinstance(keyword.value, ast.Constant | ast.JoinedStr):
            return keyword.value
    if not call.args or not isinstance(call.func, ast.Attribute) or call.func.attr not in _STARTERS:
        return None
    first = call.args[0]
    if isinstance(call.func.value, ast.Name) and call.func.value.id in _MODULES:
        # Of trio.run the first argument is a function.
        return None if call.func.value.id in ("trio", "asyncio") and call.func.attr == "run" else first
    # `host.run("ip", …)`: the words are the arguments.
    return ast.Tuple(call.args) if call.func.attr == "run" and _is_text(first) else None


def _is_text(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Starred) or (
        isinstance(expression, ast.Constant) and isinstance(expression.value, str)
    )


def _assigned(tree: ast.AST, name: str, *, of_self: bool = False) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if _has_value(node) else []
        for target in targets:
            is_it = isinstance(target, ast.Attribute) and target.attr == name if of_self else False
            if is_it or (isinstance(target, ast.Name) and target.id == name and not of_self):
                yield node.value  # type: ignore[attr-defined]
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == name and not of_self:
            yield from getattr(node.iter, "elts", ())


def _has_value(node: ast.AST) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is not None


def _returned(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, _Function) and node.name == name:
            yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value)
