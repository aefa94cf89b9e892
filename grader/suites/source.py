"""Reading Python source that a suite brings along, without running it."""

from __future__ import annotations

import ast
import warnings


def parse_source(source: str) -> ast.Module:
    """Parse Python source, without the warnings that old code gives for its escape sequences.

    Raises:
        ValueError: it is not Python; the text says why and on which of its lines.

    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except SyntaxError as error:
            raise ValueError(f"not Python: {error.msg} (its line {error.lineno})") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError("not usable Python: nested too deeply") from error
