import json

import pytest

from grader.errors import CellLostError
from grader.schema import Summary, Verdict


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_is_alone_on_stdout(grader, engines, samples):
    code, out, err = grader("score", samples, "--suite", "toy+", "--k", "1,2,3", "--json")
    assert (code, err) == (0, "")
    summary = Summary.model_validate_json(out)
    assert summary.pass_at_k["base"] == {"1": 0.5, "2": pytest.approx(2 / 3), "3": None}
    assert summary.pass_at_k["plus"]["1"] == pytest.approx(1 / 3)
    assert summary.samples == 6
    assert summary.workers == 2
    assert summary.statuses == {"passed": 2, "wrong_answer": 4}


def test_table(grader, engines, samples):
    code, out, _ = grader("score", samples, "--k", "1,5")
    assert code == 0
    assert "toy+ v1: 6 samples, 3 tasks" in out
    assert "pass@1" in out
    assert "0.500" in out
    assert "base + plus" in out
    assert "wrong_answer" in out
    assert "fewer judged samples than k" in out


def test_quiet_says_nothing(grader, engines, samples):
    assert grader("score", samples, "--quiet") == (0, "", "")


def test_files(grader, engines, samples, tmp_path):
    output, summary, evalplus = (tmp_path / name for name in ("v.jsonl", "s.json", "e.json"))
    code, _, _ = grader(
        "score", samples, "--output", output, "--summary", summary, "--evalplus-output", evalplus, "--quiet"
    )
    assert code == 0
    verdicts = [Verdict.model_validate(row) for row in rows(output)]
    assert len({verdict.sample_id for verdict in verdicts}) == 6
    assert Summary.model_validate_json(summary.read_text()).samples == 6
    found = json.loads(evalplus.read_text())["eval"]
    assert [row["base_status"] for row in found["Toy/1"]] == ["pass", "fail"]
    assert found["Toy/1"][0]["plus_fail_tests"] == [[2]]


def test_identical_programs_run_once_unless_told_not_to(grader, engines, samples):
    grader("score", samples, "--quiet")
    grader("score", samples, "--quiet", "--no-cache")
    assert [len(engine.graded) for engine in engines.made] == [4, 6]


def test_flags_reach_the_engine(grader, engines, samples):
    flags = [
        "--groups",
        "base",
        "--workers",
        "3",
        "--sandbox",
        "namespaces",
        "--allow-missing",
        "landlock",
    ]
    limits = ["--time-floor", "1", "--time-factor", "2.5", "--memory-limit", "1000", "--no-fail-fast"]
    assert grader("score", samples, "--quiet", *flags, *limits)[0] == 0
    (engine,) = engines.made
    assert engine.groups == ("base",)
    options = engine.options
    assert (options.workers, options.cells.sandbox, options.fail_fast) == (3, "namespaces", False)
    assert options.cells.allow_missing == ("landlock",)
    limits = options.limits
    assert (limits.time_floor_s, limits.time_factor, limits.memory_bytes) == (1.0, 2.5, 1000)
    assert engine.closed


def test_environment_is_used_and_flags_win(grader, engines, samples, monkeypatch):
    monkeypatch.setenv("GRADER_WORKERS", "7")
    monkeypatch.setenv("GRADER_SANDBOX", "docker")
    grader("score", samples, "--quiet")
    grader("score", samples, "--quiet", "--workers", "1", "--sandbox", "auto")
    assert [(engine.options.workers, engine.options.cells.sandbox) for engine in engines.made] == [
        (7, "docker"),
        (1, "auto"),
    ]


def test_only_the_tasks_that_samples_name_are_prepared(grader, engines, samples):
    samples.write_text('{"task_id": "Toy/1", "completion": "passed"}\n')
    code, out, err = grader("score", samples)
    assert code == 0
    assert list(engines.made[0].suite.tasks) == ["Toy/1"]
    assert "warning: 2 of the 3 tasks of toy+ have no sample" in err
    assert "1 of 3 tasks that have samples" in out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--profile", "rewards"], "--profile rewards is not available in this version"),
        (["--isolation", "uids"], "--sandbox docker"),
        (["--one-shot"], "--sandbox docker"),
        (["--allow-missing", "seccomp"], "never made without seccomp"),
        (["--runtime", "runc"], "--sandbox docker"),
        (["--k", "0"], "k is 0"),
        (["--k", "1,x"], "--k is '1,x'"),
        (["--k", ""], "--k is ''"),
        (["--groups", "base,hidden"], "no test group 'hidden'; its groups are base, plus"),
        (["--groups", ""], "--groups is ''"),
        (["--allow-missing", "a,,b"], "--allow-missing is 'a,,b'"),
        (["--time-floor", "0"], "time_floor_s is 0"),
        (["--time-floor", "nan"], "time_floor_s is nan"),
        (["--time-factor", "inf"], "finite"),
        (["--resume"], "--resume needs --output"),
        (["--groups", "plus", "--evalplus-output", "x.json"], "needs the test group base"),
        (["--output", "no/such/folder/x"], "there is no folder"),
    ],
)
def test_bad_usage_is_refused_before_anything_runs(grader, engines, samples, monkeypatch, flags, says):
    monkeypatch.chdir(samples.parent)
    code, out, err = grader("score", samples, *flags)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("grader: ")
    assert err.count("\n") == 1
    assert not engines.made


@pytest.mark.parametrize(
    "flags", [["--workers", "0"], ["--sandbox", "none"], ["--nonsense"], ["--memory-limit", "1G"]]
)
def test_usage_errors_end_with_2(grader, engines, samples, flags):
    code, out, _ = grader("score", samples, *flags)
    assert (code, out) == (2, "")


@pytest.mark.parametrize(
    ("name", "value"), [("GRADER_WORKERS", "many"), ("GRADER_ENGINE", "dask"), ("GRADER_SANDBOX", "none")]
)
def test_a_bad_variable_is_named(grader, engines, samples, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, _, err = grader("score", samples)
    assert code == 2
    assert f"{name} is '{value}'" in err


def test_bad_samples_are_refused_before_anything_runs(grader, engines, samples, tmp_path):
    samples.write_text(samples.read_text() + "{]\n")
    output = tmp_path / "v.jsonl"
    code, out, err = grader("score", samples, "--output", output)
    assert (code, out) == (2, "")
    assert f"{samples}, line 7: invalid JSON" in err
    assert not engines.made
    assert not output.exists()


def test_one_file_for_two_things(grader, engines, samples, tmp_path):
    code, _, err = grader("score", samples, "--output", tmp_path / "x", "--summary", tmp_path / "x")
    assert code == 2
    assert "name the same file" in err


def test_missing_samples_come_before_the_suite(grader, tmp_path):
    code, _, err = grader("score", tmp_path / "none.jsonl", "--suite", "no-such-suite")
    assert code == 2
    assert "none.jsonl: No such file" in err


def test_no_isolation_ends_with_3(grader, broken_sandbox, samples):
    code, out, err = grader("score", samples, "--json")
    assert (code, out) == (3, "")
    assert err == "grader: no user namespaces; set kernel.unprivileged_userns_clone to 1\n"


def test_samples_that_could_not_be_graded_end_with_3(grader, engines, samples, tmp_path):
    samples.write_text(samples.read_text() + '{"task_id": "Toy/0", "solution": "lost"}\n')
    output = tmp_path / "v.jsonl"
    code, out, err = grader("score", samples, "--json", "--output", output)
    assert code == 3
    assert json.loads(out)["infrastructure_errors"] == 1
    assert "1 samples could not be graded; the same command with --resume" in err
    samples_before = len(engines.made[0].graded)
    assert grader("score", samples, "--json", "--output", output, "--resume")[0] == 3
    assert samples_before > len(engines.made[1].graded) == 1


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted after 2 verdicts; the verdicts so far are in"),
        (SystemExit(143), 143, "interrupted after 2 verdicts"),
        (CellLostError("every cell died"), 3, "every cell died"),
    ],
)
def test_an_interrupted_run_resumes(grader, engines, samples, tmp_path, error, code, says):
    output = tmp_path / "v.jsonl"
    arguments = ["score", samples, "--output", output, "--no-cache"]
    engines.fail_with, engines.fail_after = error, 2
    found, out, err = grader(*arguments)
    assert (found, out) == (code, "")
    assert says in err
    assert engines.made[0].closed
    assert len(rows(output)) == 2

    engines.fail_with = None
    found, out, _ = grader(*arguments, "--resume")
    assert found == 0
    assert (
        "2 samples were graded by an earlier run; time and rate are of this one, CPU time is of both" in out
    )
    assert "1.5 s of CPU in programs" in out  # a quarter each, as the engine says
    assert len(engines.made[1].graded) == 4
    assert sorted(row["sample_id"] for row in rows(output)) == [
        f"Toy/{t}:{n}" for t in range(3) for n in (0, 1)
    ]
    assert grader(*arguments, "--resume")[0] == 0
    assert engines.made[2].graded == []


def test_resuming_with_other_limits_is_refused(grader, engines, samples, tmp_path):
    output = tmp_path / "v.jsonl"
    grader("score", samples, "--output", output)
    code, _, err = grader("score", samples, "--output", output, "--resume", "--time-floor", "1")
    assert code == 2
    assert "from a run with other limits" in err


def test_progress_on_a_terminal(grader, engines, samples, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    code, out, err = grader("score", samples, "--json")
    assert code == 0
    json.loads(out)
    assert "expected answers" in err
    assert "grading" in err
    assert "6/6" in err
