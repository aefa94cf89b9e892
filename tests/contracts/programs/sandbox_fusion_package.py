"""SandboxFusion's own client package."""

import os

from rows import answer
from sandbox_fusion import (
    GetPromptByIdRequest,
    GetPromptsRequest,
    RunCodeRequest,
    SubmitRequest,
    TestConfig,
    get_prompt_by_id,
    get_prompts,
    run_code,
    run_concurrent,
    set_endpoint,
    submit,
)

set_endpoint(os.environ["URL"])


def run(code, **more):
    return run_code(RunCodeRequest(code=code, language="python", **more), max_attempts=1)


right = run("print(input())", stdin="hello\n")
fails = run("import sys\nprint('x', file=sys.stderr)\nsys.exit(3)")
slow = run("while True: pass", run_timeout=1)
many = run_concurrent(
    run_code, args=[[RunCodeRequest(code=f"print({n})", language="python")] for n in range(20)]
)
config = TestConfig(language="python", run_timeout=20)
prompts = get_prompts(GetPromptsRequest(dataset="starter", config=config, offset=1, limit=2))
first = get_prompt_by_id(GetPromptByIdRequest(dataset="starter", id=prompts[0].id, config=config))
completions = [os.environ["RIGHT"], os.environ["WRONG"], "I do not know."]
submitted = [
    submit(SubmitRequest(dataset="starter", id=first.id, completion=text, config=config), max_attempts=1)
    for text in completions
]
answer({
    "right": [right.status.value, right.run_result.status.value, right.run_result.stdout, right.run_result.return_code],
    "fails": [fails.status.value, fails.run_result.return_code, fails.run_result.stderr],
    "slow": [slow.status.value, slow.run_result.status.value],
    "prompts": [[one.id, one.prompt] for one in prompts],
    "first": first.prompt,
    "submitted": [
        [one.id, one.accepted, one.extracted_type, [test.passed for test in one.tests]] for one in submitted
    ],
    "many": [one.run_result.stdout for one in many],
})  # fmt: skip
