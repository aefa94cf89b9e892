import pytest

import grader
from grader.errors import InputError, SampleError
from grader.samples import GivenSample

SAMPLES = [
    {"task_id": "Toy/0", "solution": "passed = 1"},
    grader.Sample(task_id="Toy/1", sample_id="mine", completion="```python\nbase = 1\n```"),
    {"task_id": "Toy/0", "solution": "passed = 1", "sample_id": "again"},
]


def test_grade(engines):
    verdicts = {verdict.sample_id: verdict for verdict in grader.grade(SAMPLES, suite="toy+")}
    assert {name: verdict.passed for name, verdict in verdicts.items()} == {
        "Toy/0:0": True,
        "mine": False,
        "again": True,
    }
    assert verdicts["again"].cached
    assert verdicts["mine"].extraction
    assert list(engines.made[0].suite.tasks) == ["Toy/0", "Toy/1"]
    assert engines.made[0].closed


@pytest.mark.parametrize("use_cache", [True, False])
def test_flags_are_there_where_they_are_asked_for(engines, use_cache):
    cheats = "import os\npassed = 1\ndef f(): os._exit(0)"
    samples = [*SAMPLES, {"task_id": "Toy/1", "solution": cheats}, {"task_id": "Toy/1", "solution": cheats}]
    found = grader.grade(samples, suite="toy+", include_flags=True, use_cache=use_cache)
    assert {verdict.sample_id: verdict.flags for verdict in found} == {
        "Toy/0:0": (),
        "mine": (),
        "again": (),
        "Toy/1:1": ("exit_call",),
        "Toy/1:2": ("exit_call",),
    }
    assert all(verdict.flags is None for verdict in grader.grade(samples, suite="toy+"))
    assert all(engine.closed for engine in engines.made)


def test_a_sequence_is_checked_as_a_whole_first(engines):
    with pytest.raises(SampleError, match="sample 4: the sample has neither"):
        grader.grade([*SAMPLES, {"task_id": "Toy/0"}], suite="toy+")
    assert not engines.made


def test_an_iterator_is_pulled_as_needed(engines):
    pulled = []

    def endless():
        for number in range(10**9):
            pulled.append(number)
            yield {"task_id": "Toy/0", "solution": f"passed = {number}"}

    verdicts = grader.grade(endless(), suite="toy+")
    assert next(verdicts).sample_id == "Toy/0:0"
    assert len(pulled) < 5
    verdicts.close()
    assert engines.made[0].closed


def test_a_bad_sample_in_an_iterator(engines):
    verdicts = grader.grade(iter([SAMPLES[0], "text"]), suite="toy+")
    with pytest.raises(SampleError, match="sample 2: a sample is an object"):
        list(verdicts)
    assert engines.made[0].closed


def test_score(engines, samples, tmp_path):
    summary = grader.score(samples, suite="toy+", k=(2, 1, 1), summary_output=str(tmp_path / "s.json"))
    assert list(summary.pass_at_k["plus"]) == ["1", "2"]
    assert grader.Summary.model_validate_json((tmp_path / "s.json").read_text()) == summary


def test_without_a_reporter_warnings_are_logged(engines, samples, caplog):
    samples.write_text('{"task_id": "Toy/0", "solution": "passed"}\n')
    grader.score(samples, suite="toy+")
    assert "2 of the 3 tasks" in caplog.text


@pytest.mark.parametrize("options", [{"k": ()}, {"k": (0,)}, {"k": (1.5,)}, {"workers": 0}, {"engine": "x"}])
def test_bad_options(engines, samples, options):
    with pytest.raises(InputError):
        grader.score(samples, suite="toy+", **options)
    assert not engines.made


def test_lone_surrogates_reach_the_worker(suite):
    from grader.run import program_of

    for is_solution in (True, False):
        program = program_of(GivenSample("Toy/0", "x", "def f(x):\n  return '\ud800'\n", is_solution), suite)
        assert "\ud800" in program.source
