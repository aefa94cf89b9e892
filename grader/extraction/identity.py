"""When two programs are the same program: hashes that let identical ones be run once.

Two grades of sameness, because a verdict can show more of a program than the program's behaviour:

- ``exact_identity``: the same text. Any verdict may be shared.
- ``program_identity``: the same syntax tree, apart from comments, formatting and docstrings, but for classes', which a
  metaclass is given. What the programs compute is the same, but lines may stand elsewhere, and a failing verdict names
  a line (``error.line``). Only passing verdicts may be shared by it.

``outline`` costs less than the second, and is the same where that is: of programs with different outlines neither has
to be parsed for it to be known that they differ.

A program that could tell the difference itself gets its exact identity in both. That is decided by what it
names, and on the safe side: only imports known to show no source, no line and no docstring keep a
program mergeable, and any mention of introspection, even inside a string, ends it. A tree is the tree of this
interpreter; hashes made by different Python versions are not to be compared.
"""

from __future__ import annotations

import ast
import hashlib
import keyword
import marshal
import re
import sys
import unicodedata
from typing import Any

from grader.extraction.syntax import MAX_PARSED_CHARS, parse_source

_BLIND_MODULE_LIST = (
    "__future__ array bisect calendar cmath collections copy dataclasses datetime decimal fractions"
    " functools hashlib heapq itertools json math numbers operator queue random re statistics string sys"
    " textwrap time typing typing_extensions"
)
_BLIND_MODULES = frozenset(_BLIND_MODULE_LIST.split())
"""Modules through which a program cannot see its own text, short of the names below.

Not ``abc`` and ``enum``: both make classes whose attributes' names are computed.
"""
_BLIND_SUBMODULES = frozenset(("collections.abc", "json.decoder", "json.encoder"))
_SEEING_MODULES = sys.stdlib_module_names - _BLIND_MODULES
"""What no attribute may be called: modules hang on the modules that import them, as ``re.enum`` does."""

_REVEALING_NAME_LIST = (
    # builtins that reach source, docstrings or frames, and files, through which anything can be reached
    "eval exec compile open breakpoint help vars globals locals getattr __import__ memoryview"
    # modules, which also hang as attributes on other modules (``random._os``, ``dataclasses.inspect``)
    " ast builtins codecs ctypes dis doctest fileinput gc importlib inspect io linecache logging marshal"
    " os pathlib pdb pickle pkgutil posix pydoc runpy shelve shutil signal socket subprocess symtable"
    " threading tokenize traceback tracemalloc types unittest warnings weakref zipimport"
    # the ways into frames, code objects and the list of modules
    " exc_info exception exc_clear last_exc last_traceback last_value settrace setprofile gettrace getprofile"
    " breakpointhook stderr set_coroutine_origin_tracking_depth get_overloads overload"
    " getrefcount getsizeof getallocatedblocks getunicodeinternedsize monitoring"
    " modules meta_path path_hooks path_importer_cache displayhook excepthook"
    " unraisablehook call_tracing activate_stack_trampoline with_traceback"
    # building an attribute's name out of pieces
    " attrgetter methodcaller format_map vformat Formatter get_type_hints update_wrapper assigned attrname"
    # or an attribute of such a name, which then has the interpreter read another one of an object: __match_args__
    " setattr type metaclass wraps make_dataclass copyreg dispatch_table enum IntEnum EnumType"
    # or has any object count as an instance of one's own class, or copies a docstring into such an instance
    " abc register Protocol runtime runtime_checkable property staticmethod classmethod cached_property"
    # evaluating a string: singledispatch does with annotations
    " singledispatch singledispatchmethod ForwardRef get_annotations evaluate_forward_ref addaudithook"
)
_REVEALING_NAMES = frozenset(_REVEALING_NAME_LIST.split())
_REVEALING_FORM = re.compile(
    r"(?:co|cr|gi|ag|tb)_[a-z]+\Z|f_(?:back|builtins|code|globals|las|line|locals|trace)"
    r"|[A-Z]\w*Meta\Z"
    r"|(?:AsyncGenerator|Cell|Code|Coroutine|Frame|Function|Generator|Lambda|Method|Module|Traceback)Type\Z"
)
# What the format of a string may have looked up: ``"{0.gi_frame.f_lineno}".format(g())``.
_FORMATTED_ATTRIBUTE = re.compile(r"\.\s*(\w+)")

_HARMLESS_DUNDER_LIST = (
    "abs add aenter aexit and anext aiter bool bytes call ceil complex contains copy deepcopy debug"
    " delattr delitem divmod enter eq exit float floor floordiv format future ge getitem gt hash iadd iand"
    " ifloordiv ilshift imod imul index init int invert ior ipow irshift isub iter itruediv ixor le len"
    " length_hint lshift lt main matmul missing mod mul name ne neg new next or pos post_init pow qualname"
    " radd rand rdivmod repr reversed rfloordiv rlshift rmod rmul ror round rpow rrshift rshift rsub"
    " rtruediv rxor setitem slots str sub truediv trunc xor"
)
# Not ``__setattr__``: properties, and what functools wraps, are given a function's docstring as an attribute.
_HARMLESS_DUNDERS = frozenset(f"__{name}__" for name in _HARMLESS_DUNDER_LIST.split())
_DUNDER = re.compile(r"__[A-Za-z]\w*__")

# compile() obeys a coding line where it is given bytes, so that this comment is part of the program.
_CODING_LINE = re.compile(r"^[ \t\f]*#.*?coding[:=]", re.MULTILINE)

# Strings and comments, which the group leaves out, and names and numbers. A string that is not closed goes on to the
# end of its line or of the text, and nothing is tried twice: the time is linear, whatever the text is. (Atomic groups:
# before Python 3.11.5 a possessive repeat around a lookahead ends in the wrong place.)
_WORDS = re.compile(
    r"""(?isx:
    [rbuf]{0,2} (?: "{3} (?>(?:[^\\"]|\\.?|"(?!""))*) (?:"{3}|\Z) | '{3} (?>(?:[^\\']|\\.?|'(?!''))*) (?:'{3}|\Z)
                  | " (?>(?:[^\\"\n]|\\.?)*) "? | ' (?>(?:[^\\'\n]|\\.?)*) '? )
    | \#[^\n]*
    | ( [a-z_\x80-\U0010ffff][a-z0-9_\x80-\U0010ffff]* | 0x[\da-f_]+ | 0o[0-7_]+ | 0b[01_]+
      | (?: \d[\d_]*\.?[\d_]* | \.\d[\d_]* ) (?:e[+-]?\d[\d_]*)? j? )
    )"""
)
_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z|[1-9][0-9]*\Z|0\Z")
_MAX_NORMALIZED_CHARS = 256  # its time grows with the square of combining marks in a row
_KEYWORDS = frozenset(keyword.kwlist)

_SKIPPED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_SHAPES: dict[type, tuple[str, tuple[str, ...]]] = {
    cls: (name, tuple(field for field in reversed(cls._fields) if field not in _SKIPPED_FIELDS))
    for name, cls in vars(ast).items()
    if isinstance(cls, type) and issubclass(cls, ast.AST)
}
_CHECKED = (ast.Import, ast.ImportFrom, ast.Attribute, ast.Compare, ast.MatchClass)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DECORATORS = frozenset(("property", "staticmethod", "classmethod"))
_WITH_UNSEEN_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)


def exact_identity(source: str) -> str:
    """Return the sha256 (hex) of the text; never raises, also not for lone surrogates."""
    return hashlib.sha256(b"text\0" + source.encode("utf-8", "surrogatepass")).hexdigest()


def outline(source: str) -> str:
    """Return a sha256 (hex) of the names and numbers in the text, in alphabetical order.

    It is equal for programs whose ``program_identity`` by syntax tree is, but for what no program has: names of
    hundreds of letters that can be written in several ways, and strings inside the format strings of Python 3.12 that
    have the same quotes. Never raises; takes time linear in the text.
    """
    if len(source) > MAX_PARSED_CHARS:
        return exact_identity(source)
    words = [
        word if _PLAIN_WORD.match(word) else _canonical(word)
        for word in _WORDS.findall(source.replace("\r\n", "\n").replace("\r", "\n"))
        if word and word not in _KEYWORDS
    ]
    words.sort()
    return hashlib.sha256(b"outline\0" + " ".join(words).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(word: str) -> str:
    """How a name or number is written in the outline where it can be written in several ways."""
    if not (word[0].isdigit() or word[0] == "."):
        return unicodedata.normalize("NFKC", word) if len(word) <= _MAX_NORMALIZED_CHARS else word
    number = word.replace("_", "").lower()
    try:
        if number[:2] in ("0x", "0o", "0b"):
            return f"{int(number, 0)}"
        if number.isdigit():
            return f"{int(number)}"
        return repr(complex(number) if number[-1] == "j" else float(number))
    except ValueError:  # more digits than are converted, or no number
        return "number"


def program_identity(source: str) -> str:
    """Return a sha256 (hex) that is equal for programs that cannot behave differently.

    Equal to ``exact_identity`` where the program could see its own text, docstrings or line numbers, and
    where it does not parse. Never raises. Lines may differ between programs of one identity: see the
    module's text.
    """
    if len(source) > MAX_PARSED_CHARS or _CODING_LINE.search("\n".join(source.split("\n", 2)[:2])):
        return exact_identity(source)
    tree = parse_source(source).tree
    if tree is None:
        return exact_identity(source)
    flat = _flattened(tree)
    if flat is None or _sees_itself(flat):
        return exact_identity(source)
    # Version 2 of marshal has no references, so that equal lists make equal bytes; it keeps 1, 1.0, True and
    # -0.0 apart, and has no limit on the digits of an integer.
    return hashlib.sha256(b"tree\0" + marshal.dumps(flat, 2)).hexdigest()


def _flattened(tree: ast.Module) -> list[Any] | None:
    """Write the tree as a flat list: class name, then its fields in a fixed order; a list after its length.

    Unambiguous, as every class has a fixed number of fields, and iterative, as trees can be deep. None for an
    import outside the modules that show nothing, and for a format string that is not a literal.
    """
    flat: list[Any] = []
    pending: list[Any] = [tree]
    shapes = _SHAPES
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is list:
            flat.append(len(item))
            pending.extend(item)
            continue
        shape = shapes.get(kind)
        if shape is None:
            flat.append(item)
            continue
        flat.append(shape[0])
        if kind in _WITH_UNSEEN_DOCSTRING:
            _drop_docstring(item)
            if kind in _FUNCTIONS:
                _excuse_decorators(item)
        elif kind in _CHECKED and _may_reveal(item):
            return None
        for field in shape[1]:
            pending.append(getattr(item, field, None))
    return flat


def _drop_docstring(node: Any) -> None:
    body = node.body
    if body and type(body[0]) is ast.Expr:
        value = body[0].value
        if type(value) is ast.Constant and type(value.value) is str:
            del body[0]


def _may_reveal(node: Any) -> bool:
    if type(node) is ast.Compare:
        for side in (node.left, *node.comparators):
            _excuse_type(side)
        return False
    if type(node) is ast.MatchClass:
        return any(name == "format" or _leads_elsewhere(name) for name in node.kwd_attrs)
    if type(node) is ast.Attribute:
        if node.attr == "__name__":
            _excuse_type(node.value)
        if node.attr == "compile" and isinstance(node.value, ast.Name) and node.value.id == "re":
            node.attr = "re.compile"  # so that it is not taken for the builtin; no identifier has a dot
        if node.attr == "format" and type(node.value) is not ast.Constant:
            return True
        return _leads_elsewhere(node.attr)
    return not _shows_nothing(node)


def _leads_elsewhere(attribute: str) -> bool:
    """Whether it may be a module, or what a module keeps to itself; a dunder is looked at with the other words."""
    return attribute in _SEEING_MODULES or (attribute.startswith("_") and not attribute.endswith("__"))


def _excuse_type(node: Any) -> None:
    """Let pass ``type(x)`` where it is only compared or named; elsewhere it can be called, and makes a class."""
    called = type(node) is ast.Call and isinstance(node.func, ast.Name) and node.func.id == "type"
    if called and len(node.args) == 1 and type(node.args[0]) is not ast.Starred and not node.keywords:
        node.func.id = "type()"  # no name


def _excuse_decorators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Let pass ``@property`` and the like; elsewhere one can make a class of them, whose instances have docstrings."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Name) and decorator.id in _DECORATORS:
            decorator.id = f"@{decorator.id}"  # no name


def _shows_nothing(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.Import):
        return all(_is_blind(alias.name) for alias in node.names)
    if node.level or not _is_blind(node.module or "") or (node.module == "sys" and node.names[0].name == "*"):
        return False
    return not any(_leads_elsewhere(alias.name) for alias in node.names)


def _is_blind(module: str) -> bool:
    return module in _BLIND_MODULES or module in _BLIND_SUBMODULES


def _sees_itself(flat: list[Any]) -> bool:
    words = {item for item in flat if type(item) is str}
    if not _REVEALING_NAMES.isdisjoint(words):
        return True
    if any(_REVEALING_FORM.match(word) or ("{" in word and _formats_what_reveals(word)) for word in words):
        return True
    return any("__" in word and not _HARMLESS_DUNDERS.issuperset(_DUNDER.findall(word)) for word in words)


def _formats_what_reveals(text: str) -> bool:
    return any(
        name in _REVEALING_NAMES or _REVEALING_FORM.match(name) or _leads_elsewhere(name)
        for name in _FORMATTED_ATTRIBUTE.findall(text)
    )
