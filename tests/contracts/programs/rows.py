"""What the programs here have graded. Standard library alone: it is imported in other projects' environments."""

import json

ADD = json.dumps({"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "add"})
ECHO = {"inputs": ["a\n", "b\n"], "outputs": ["a\n", "b\n"]}
ASSERTED = json.dumps({"inputs": ["", ""], "outputs": [None, None],
                       "assert_case": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]})  # fmt: skip
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```"
WRONG = "```python\ndef add(a, b):\n    return 0\n```"
EXIT = "```python\nimport sys\ndef add(a, b):\n    return 0\nsys.exit(0)\n```"
ECHOES = "```python\nprint(input())\n```"
# A service over a grading that runs nothing obeys this: an infrastructure error.
LOST = "```python\n# stub: path\nx = 1\n```"


def answer(found):
    """Print what the test is to be told; NaN becomes the text "nan"."""
    print("\n" + json.dumps(_plain(found)), flush=True)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value != value:
        return "nan"
    return value
