"""SandboxFusion's own client package."""

import os

from rows import answer
from sandbox_fusion import RunCodeRequest, run_code, run_concurrent, set_endpoint

set_endpoint(os.environ["URL"])


def run(code, **more):
    return run_code(RunCodeRequest(code=code, language="python", **more), max_attempts=1)


right = run("print(input())", stdin="hello\n")
fails = run("import sys\nprint('x', file=sys.stderr)\nsys.exit(3)")
slow = run("while True: pass", run_timeout=1)
many = run_concurrent(
    run_code, args=[[RunCodeRequest(code=f"print({n})", language="python")] for n in range(20)]
)
answer({
    "right": [right.status.value, right.run_result.status.value, right.run_result.stdout, right.run_result.return_code],
    "fails": [fails.status.value, fails.run_result.return_code, fails.run_result.stderr],
    "slow": [slow.status.value, slow.run_result.status.value],
    "many": [one.run_result.stdout for one in many],
})  # fmt: skip
