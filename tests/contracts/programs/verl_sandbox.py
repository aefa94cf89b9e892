"""verl's own scoring by SandboxFusion, with our URL in the place of its service's."""

import os
import threading

from rows import ASSERTED, ECHO, ECHOES, EXIT, RIGHT, WRONG, answer
from verl.utils.reward_score.sandbox_fusion import compute_score

LINES = {"inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"], "fn_name": "add"}
LOOP = "```python\nwhile True:\n    pass\n```"
BROKEN = "```python\ndef add(:\n```"
NOISY = "```python\nprint('x' * 150_000)\n```"
RAISES = "```python\nraise KeyError(1)\n```"

semaphore = threading.Semaphore(16)


def score(completion, tests, **more):
    value, metadata = compute_score(
        f"{os.environ['URL']}/run_code", semaphore, 1024, completion, tests, **more
    )
    return [value, [one.get("status") for one in metadata]]


answer({
    "right": score(RIGHT, LINES),
    "wrong": score(WRONG, LINES),
    "echo": score(ECHOES, ECHO, continuous=True),
    "half": score("```python\nprint('a')\n```", ECHO),
    "asserted": score(RIGHT, ASSERTED),
    "exit 0": score(EXIT, ASSERTED),
    "raises": score(RAISES, ECHO),
    "broken": score(BROKEN, ECHO),
    "endless": score(LOOP, {"inputs": [""], "outputs": [""]}, timeout=1),
    "noisy": score(NOISY, {"inputs": [""], "outputs": ["x" * 150_000]}),
    "many": score(ECHOES, {"inputs": [f"{n}\n" for n in range(100)], "outputs": [f"{n}\n" for n in range(100)]}),
})  # fmt: skip
