"""tinker-cookbook's own grading of code by SandboxFusion, with our URL in the place of its service's."""

import asyncio

from rows import answer
from tinker_cookbook.recipes.code_rl import code_grading
from tinker_cookbook.recipes.code_rl.code_grading import (
    extract_code_from_model,
    sandbox_check_correctness,
    taco_to_lcb_format,
)

LINES = taco_to_lcb_format({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
CALLS = [
    {"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}},
    {"input": "3\n4", "output": "7", "testtype": "functional", "metadata": {"func_name": "add"}},
]
PRINTS = "```python\nprint(sum(map(int, input().split())))\n```"
ADDS = "```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```"
WRONG = "```python\nclass Solution:\n    def add(self, a, b):\n        return 3\n```"


async def check(completion, tests):
    passed, details = await sandbox_check_correctness(tests, extract_code_from_model(completion), timeout=2)
    return [passed, details.get("status"), details.get("error"), details["run_result"]["stdout"]]


async def main():
    cases = {
        "lines": (PRINTS, LINES),
        "lines, wrong": (PRINTS.replace("sum", "max"), LINES),
        "calls": (ADDS, CALLS),
        "calls, wrong": (WRONG, CALLS),
        "raises": ("```python\nraise KeyError(1)\n```", LINES),
        "endless": ("```python\nwhile True:\n    pass\n```", LINES),
        "exits": ("```python\nimport os\nos._exit(0)\n```", LINES),
    }
    many = [check(*cases["lines"]) for _ in range(32)]
    found = {name: await check(*case) for name, case in cases.items()}
    found["many"] = [passed for passed, *_ in await asyncio.gather(*many)]
    await code_grading._get_sandboxfusion_client().close()
    return found


answer(asyncio.run(main()))
