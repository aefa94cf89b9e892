"""Which names a program imports and uses, from its syntax tree; aliases are followed, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Names:
    """``modules`` imported, e.g. ``os.path``; ``used``: each dotted name read, e.g. ``os.path.join``, by its real
    name where an import gave it another; ``called``: those of them that are called. ``nodes``: of the program's tree,
    the outer before the inner."""

    modules: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    nodes: Sequence[ast.AST] = ()

    def dotted(self, node: ast.AST) -> str:
        """Return the dotted name that an expression is, e.g. ``os.path.join``; "" where it is none."""
        return _dotted(node, self.aliases)

    def imports(self, module: str) -> bool:
        """Whether the module, or one inside of it, is imported."""
        return any(found == module or found.startswith(module + ".") for found in self.modules)

    def calls(self, name: str) -> bool:
        """Whether the dotted name is called; a name without a dot also as a method."""
        if name in self.called:
            return True
        return "." not in name and any(found.endswith("." + name) for found in self.called)


@dataclass(slots=True)
class _Reading:
    modules: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)

    def read_imports(self, nodes: list[ast.AST]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.modules.add(alias.name)
                    top = alias.name.partition(".")[0]
                    self.aliases[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.modules.add(node.module)
                for alias in node.names:
                    self.aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Call) and (module := _imported_by_call(node)):
                self.modules.add(module)
        self._follow_assignments(nodes)

    def _follow_assignments(self, nodes: list[ast.AST]) -> None:
        """Know ``o = __import__("os")`` and ``leave = os._exit`` as well."""
        for node in nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = node.targets[0]
                if isinstance(target, ast.Name) and (
                    name := _dotted(node.value, self.aliases)
                ) in self._known(name):
                    self.aliases.setdefault(target.id, name)

    def _known(self, name: str) -> tuple[str, ...]:
        top = name.partition(".")[0]
        return (name,) if top in {module.partition(".")[0] for module in self.modules} else ()


def _dotted(node: ast.AST, aliases: Mapping[str, str]) -> str:
    steps: list[str] = []
    while isinstance(node, ast.Attribute):
        steps.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        steps.append(aliases.get(node.id, node.id))
    elif isinstance(node, ast.Call) and (module := _imported_by_call(node)):
        steps.append(module)
    else:
        steps.append("")  # an attribute of some expression: ".name"
    return ".".join(reversed(steps)) if steps != [""] else ""


def _imported_by_call(node: ast.Call) -> str:
    """The module that ``__import__("x")`` or ``import_module("x")`` imports."""
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name not in ("__import__", "import_module") or not node.args:
        return ""
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def names_of(tree: ast.Module | None) -> Names:
    """Read the names of a program; a program that cannot be parsed has none."""
    if tree is None:
        return Names()
    nodes = nodes_of(tree)
    reading = _Reading()
    reading.read_imports(nodes)
    used = {_dotted(node, reading.aliases) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}
    called = {_dotted(node.func, reading.aliases) for node in nodes if isinstance(node, ast.Call)}
    return Names(
        frozenset(reading.modules), frozenset(used - {""}), frozenset(called - {""}), reading.aliases, nodes
    )


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes that ``ast.walk`` yields, without those that only say that a name is read or bound: faster."""
    nodes = [tree]
    for node in nodes:
        for name in node._fields:
            if name == "ctx":
                continue
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                nodes.append(value)
            elif isinstance(value, list):
                nodes += [one for one in value if isinstance(one, ast.AST)]
    return nodes
