"""Rewards for the form of a response: ``penalties`` and ``constraints``. Nothing of the program is run."""

from __future__ import annotations

import ast
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from grader.extraction.syntax import parse_source
from grader.limits import Limits
from grader.rewards.model import Context, Number, Part, Scored, VerdictFields, Weight
from grader.rewards.names import Names, names_of
from grader.status import Status

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$", max_length=128)]
_Count = Annotated[int, Field(strict=True, ge=1)]
# A verdict has the end of what a program printed, 64 KiB by default: that there was more cannot be seen.
MOST_NOISE_CHARACTERS = Limits().stdout_bytes - 1

_CONSTRUCTS: dict[str, tuple[type[ast.AST], ...]] = {
    "loop": (ast.For, ast.While, ast.AsyncFor),
    "for": (ast.For, ast.AsyncFor),
    "while": (ast.While,),
    "comprehension": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    "generator": (ast.Yield, ast.YieldFrom, ast.GeneratorExp),
    "lambda": (ast.Lambda,),
    "class": (ast.ClassDef,),
    "try": (ast.Try, ast.TryStar),
    "with": (ast.With, ast.AsyncWith),
    "match": (ast.Match,),
    "async": (ast.AsyncFunctionDef, ast.Await),
    "global": (ast.Global, ast.Nonlocal),
    "assert": (ast.Assert,),
    "import": (ast.Import, ast.ImportFrom),
}
_KINDS = (*_CONSTRUCTS, "recursion", "call:<name>", "import:<module>")


def _checked_construct(text: str) -> str:
    kind, _, name = text.partition(":")
    known = text in _CONSTRUCTS or text == "recursion"
    if not known and not (kind in ("call", "import") and name.replace(".", "_").isidentifier()):
        raise ValueError(f"no construct is called {text!r}; there are {', '.join(_KINDS)}")
    return text


Construct = Annotated[str, Field(max_length=128), AfterValidator(_checked_construct)]


class Penalties(Part):
    """Subtractions, 0 where nothing is to be blamed.

    ``length``: the program has more than ``max_characters``; in proportion to the excess, whole from twice as many
    on. ``banned``: it imports one of ``banned_imports`` or calls one of ``banned_calls`` (dotted names, aliases are
    followed; a name without a dot is also found as a method). ``noise``: a function printed more than
    ``noise_characters``, at most 65,535, since verdicts keep 64 KiB; what a whole program
    prints is its answer and no noise. ``no_code``: there was no code.
    """

    name: Literal["penalties"] = "penalties"
    max_characters: _Count | None = None
    length_weight: Weight = 0.1
    banned_imports: Annotated[tuple[_Name, ...], Field(max_length=256)] = ()
    banned_calls: Annotated[tuple[_Name, ...], Field(max_length=256)] = ()
    banned_weight: Weight = 0.5
    noise_characters: Annotated[_Count, Field(le=MOST_NOISE_CHARACTERS)] | None = None
    noise_weight: Weight = 0.1
    no_code_weight: Weight = 0.0

    @property
    def details(self) -> tuple[str, ...]:
        """The four penalties."""
        return ("length", "banned", "noise", "no_code")

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Add up the penalties."""
        details = {
            "length": -self.length_weight * self._excess(context.source),
            "banned": -self.banned_weight * self._has_banned(context),
            "noise": -self.noise_weight * self._is_noisy(verdict, context),
            "no_code": -self.no_code_weight * (verdict["status"] == Status.NO_CODE),
        }
        details = {name: value or 0.0 for name, value in details.items()}  # no -0.0
        return self.scored(sum(details.values()), details)

    def _excess(self, source: str) -> float:
        if self.max_characters is None:
            return 0.0
        return min(max(len(source) / self.max_characters - 1.0, 0.0), 1.0)

    def _has_banned(self, context: Context) -> bool:
        if not self.banned_imports and not self.banned_calls:
            return False
        names = names_of(context.tree)
        return any(map(names.imports, self.banned_imports)) or any(map(names.calls, self.banned_calls))

    def _is_noisy(self, verdict: VerdictFields, context: Context) -> bool:
        whole_program = context.task is not None and not context.task.entry_point
        return (
            self.noise_characters is not None
            and not whole_program
            and len(verdict["stdout_tail"]) > self.noise_characters
        )


class Constraints(Part):
    """The share of the checks that hold, each of which is a component; a program that cannot be parsed holds none.

    ``require`` and ``forbid`` name constructs: ``loop``, ``for``, ``while``, ``comprehension``, ``generator``,
    ``lambda``, ``class``, ``try``, ``with``, ``match``, ``async``, ``global``, ``assert``, ``import``, ``recursion``,
    ``call:<name>``, ``import:<module>``. ``signature``: the entry point takes the parameters that the prompt, or else
    the reference, gives it; it holds where neither says. ``typed``: each of its parameters and its result is
    annotated. ``documented``: it has a docstring.
    """

    name: Literal["constraints"] = "constraints"
    require: Annotated[tuple[Construct, ...], Field(max_length=64)] = ()
    forbid: Annotated[tuple[Construct, ...], Field(max_length=64)] = ()
    signature: bool = False
    typed: bool = False
    documented: bool = False
    weight: Number = 1.0

    @property
    def details(self) -> tuple[str, ...]:
        """One name a check."""
        chosen = (name for name in ("signature", "typed", "documented") if getattr(self, name))
        asked = (f"require {name}" for name in dict.fromkeys(self.require))
        return (*asked, *(f"forbid {name}" for name in dict.fromkeys(self.forbid)), *chosen)

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Make the checks."""
        tree = context.tree
        if tree is None or not context.source:
            return self.scored(0.0 if self.details else self.weight, dict.fromkeys(self.details, 0.0))
        names = names_of(tree)
        found = {name: _has(name, tree, names) for name in (*self.require, *self.forbid)}
        checks = {f"require {name}": found[name] for name in self.require}
        checks |= {f"forbid {name}": not found[name] for name in self.forbid}
        checks |= self._checks_of_entry_point(tree, context)
        held = {name: float(holds) for name, holds in checks.items()}
        return self.scored(self.weight * (sum(held.values()) / len(held) if held else 1.0), held)

    def _checks_of_entry_point(self, tree: ast.Module, context: Context) -> dict[str, bool]:
        entry_point = context.task.entry_point if context.task else ""
        function = find_function(tree, entry_point)
        checks = {}
        if self.signature:
            wanted = _wanted_parameters(context)
            checks["signature"] = wanted is None or (function is not None and _parameters(function) == wanted)
        if self.typed:
            checks["typed"] = function is not None and _is_typed(function)
        if self.documented:
            checks["documented"] = function is not None and bool(ast.get_docstring(function))
        return checks


def find_function(tree: ast.Module, name: str) -> Function | None:
    """Return the function of that name, also inside of a class; the last one wins. "" is the first of all."""
    found = [node for node in ast.walk(tree) if isinstance(node, Function)]
    if not name:
        return found[0] if found else None
    return next((node for node in reversed(found) if node.name == name), None)


def _has(construct: str, tree: ast.Module, names: Names) -> bool:
    kind, _, name = construct.partition(":")
    if kind == "call" and name:
        return names.calls(name)
    if name:
        return names.imports(name)
    if construct == "recursion":
        return any(isinstance(node, Function) and _calls_itself(node) for node in ast.walk(tree))
    return any(isinstance(node, _CONSTRUCTS[construct]) for node in ast.walk(tree))


def _calls_itself(function: Function) -> bool:
    return any(
        isinstance(node, ast.Call) and _called_name(node) == function.name
        for statement in function.body
        for node in ast.walk(statement)
    )


def _called_name(call: ast.Call) -> str:
    """The function's name in ``name(...)`` and ``self.name(...)``."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id
    own = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
    return function.attr if own and isinstance(function, ast.Attribute) else ""


def _wanted_parameters(context: Context) -> list[str] | None:
    """The parameters that the prompt or the reference gives the entry point; None where neither does."""
    task = context.task
    if task is None or not task.entry_point:
        return None
    for source in (task.prompt, task.prompt + "pass\n", task.prompt + "        pass\n", task.reference):
        tree = parse_source(source).tree
        function = find_function(tree, task.entry_point) if tree else None
        if function is not None:
            return _parameters(function)
    return None


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [f"{one.arg}=" for one in arguments.kwonlyargs]
    return names + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])


def _is_typed(function: Function) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one]
    if every and every[0].arg in ("self", "cls"):
        every = every[1:]
    return function.returns is not None and all(one.annotation is not None for one in every)
