"""Completion to program: each way a model may hand over its code, and what must come out."""

from __future__ import annotations

import ast

import pytest

from grader.extraction import Extraction, extract

PROMPT = '''from typing import List
import math


def total(xs: List[int]) -> int:
    """Helper."""
    return sum(xs)


def mean(xs: List[int]) -> float:
    """ Arithmetic mean of xs.
    >>> mean([1, 2, 3])
    2.0
    """
'''
BODY = "    if not xs:\n        return 0.0\n    return sum(xs) / len(xs)\n"
PROGRAM = "def mean(xs):\n    if not xs:\n        return 0.0\n    return sum(xs) / len(xs)\n"
DRAFT = "def mean(xs):\n    return 0.0\n"


def run(completion: str, prompt: str = PROMPT, entry_point: str = "mean") -> Extraction:
    return extract(completion, prompt=prompt, entry_point=entry_point)


def mean_of(source: str) -> float:
    """What the extracted program answers; the test's own programs are harmless."""
    names: dict[str, object] = {"__name__": "program"}
    exec(source, names)
    return names["mean"]([1, 2, 6])  # type: ignore[operator]


def fence(code: str, language: str = "python", marks: str = "```") -> str:
    return f"{marks}{language}\n{code}{marks}"


class TestFences:
    @pytest.mark.parametrize(
        "language", ["", "python", "Python", "py", "python3", "{.python}", 'python title="a.py"']
    )
    @pytest.mark.parametrize("marks", ["```", "````", "~~~"])
    def test_block_with_or_without_language(self, language, marks):
        completion = f"Here you go:\n\n{fence(PROGRAM, language, marks)}\n\nDone."
        assert run(completion) == Extraction(PROGRAM, "fenced")

    def test_windows_line_ends(self):
        found = run(f"Here:\n{fence(PROGRAM)}\nDone.\n".replace("\n", "\r\n"))
        assert found.how == "fenced"
        assert mean_of(found.source) == 3.0

    def test_unclosed(self):
        assert run(f"Here:\n```python\n{PROGRAM}") == Extraction(PROGRAM, "unclosed_fence")

    def test_unclosed_and_cut_off_in_the_middle_of_a_statement(self):
        found = run(f"Here:\n```python\n{PROGRAM}\n\ndef other(xs):\n    return [x for x in")
        assert found.how == "longest_parsable"
        assert mean_of(found.source) == 3.0

    @pytest.mark.parametrize("marker", ["1. Solution:\n\n   ", "1. ", "- ", "  * "])
    def test_indented_in_a_list(self, marker):
        width = len(marker.rpartition("\n")[2])
        block = fence(PROGRAM).replace("\n", "\n" + " " * width)
        assert run(f"Steps\n\n{marker}{block}\n").source == PROGRAM

    def test_fence_inside_a_docstring_does_not_end_the_block(self):
        docstring = '    """Mean.\n\n    ```\n    mean([1])\n    ```\n    """\n'
        program = f"def mean(xs):\n{docstring}    return sum(xs) / len(xs)\n"
        assert run(f"Look:\n{fence(program)}\nand then some.").source == program

    def test_code_before_a_closing_fence_whose_opening_was_in_the_prompt(self):
        found = run(f"{PROGRAM}```\n\nThis works because it does.")
        assert mean_of(found.source) == 3.0

    @pytest.mark.parametrize("tail", ["", " ", "\n\nIt works.", f"\n\nUsage:\n{fence('print(mean([1]))')}"])
    def test_closed_on_the_last_line_of_code(self, tail):
        found = run(f"Here:\n```python\n{PROGRAM.rstrip()}```{tail}")
        assert found.source.rstrip() == PROGRAM.rstrip()

    @pytest.mark.parametrize(
        ("opening", "closing"),
        [
            ("[PYTHON]\n", "[/PYTHON]\n[TESTS]\nassert mean([]) == 1\n[/TESTS]"),
            ("[BEGIN]\n", "[DONE]"),
            ("", "[DONE]\n"),
            ("<answer>\n", "</answer>"),
            ("<answer>", "</answer>"),
            ("Thus:\n<code>\n", "</code>\nDone."),
        ],
    )
    def test_other_frames_than_fences(self, opening, closing):
        assert run(f"{opening}{PROGRAM}{closing}").source.strip() == PROGRAM.strip()

    def test_body_in_front_of_a_usage_example_in_a_fence(self):
        assert mean_of(run(f"{BODY}{fence('mean([1])' + chr(10))}\n").source) == 3.0

    def test_hard_blanks(self):
        assert run(fence(PROGRAM.replace("    ", "\u00a0" * 4))).source == PROGRAM

    def test_indented_instead_of_fenced(self):
        indented = "".join(f"    {line}\n" for line in PROGRAM.splitlines())
        found = run(f"The function is:\n\n{indented}\nIt is fast.\n")
        assert found.how == "longest_parsable"
        assert found.source.rstrip() == PROGRAM.rstrip()

    def test_other_languages_lose(self):
        shell = fence("mean = 1\n", "bash")
        assert run(f"{fence(PROGRAM)}\n{shell}").source == PROGRAM

    def test_body_in_a_fence(self):
        found = run(fence(BODY))
        assert found == Extraction(PROMPT + BODY, "continued_body")

    def test_block_that_does_not_parse_is_the_programs_error(self):
        found = run(fence("def mean(xs:\n    return\n"))
        assert found.how == "unparsable"
        assert "def mean" in found.source


class TestSeveralBlocks:
    def test_usage_example_after_the_program(self):
        completion = f"{fence(PROGRAM)}\nUsage:\n{fence('print(mean([1, 2]))' + chr(10))}"
        assert run(completion).source == PROGRAM

    def test_test_file_that_imports_the_entry_point(self):
        tests = fence("from solution import mean\n\nassert mean([1]) == 1\n")
        assert run(f"{fence(PROGRAM)}\nTests:\n{tests}").source == PROGRAM

    def test_correction_of_a_draft(self):
        assert run(f"{fence(DRAFT)}\nWait, that is wrong.\n{fence(PROGRAM)}").source == PROGRAM

    def test_alternative_does_not_replace_the_answer(self):
        assert (
            run(f"{fence(PROGRAM)}\nAlternatively, a brute-force version:\n{fence(DRAFT)}").source == PROGRAM
        )

    def test_stub_does_not_replace_the_answer(self):
        stub = fence("def mean(xs):\n    ...\n")
        assert run(f"{fence(PROGRAM)}\nThe general shape is:\n{stub}").source == PROGRAM

    def test_unclosed_later_version_does_not_replace_a_closed_one(self):
        assert run(f"{fence(PROGRAM)}\nOr shorter:\n```python\n{DRAFT}").source == PROGRAM

    def test_helpers_from_another_block(self):
        reduced = "def add(xs):\n    return functools.reduce(int.__add__, xs)\n"
        helper = f"import functools\n\n{reduced}print(add([1]))\n"
        program = "def mean(xs):\n    return add(xs) / len(xs)\n"
        for completion in (
            f"{fence(helper)}\nthen\n{fence(program)}",
            f"{fence(program)}\nwhere\n{fence(helper)}",
        ):
            found = run(completion)
            assert mean_of(found.source) == 3.0
            assert "print" not in found.source

    def test_usage_is_not_mistaken_for_a_helper(self):
        usage = fence("result = mean([1, 2, 3])\n")
        program = "def mean(xs):\n    result = sum(xs)\n    return result / len(xs)\n"
        assert run(f"{fence(program)}\n{usage}").source == program


class TestContinuedBody:
    def test_as_it_is(self):
        assert run(BODY) == Extraction(PROMPT + BODY, "continued_body")

    @pytest.mark.parametrize(
        "body",
        [
            BODY.lstrip(),
            BODY.replace("    ", "   ", 1),
            BODY.replace("    ", "     ", 1),
            "\n".join(line[1:] for line in BODY.split("\n")),
            "\n".join(" " + line if line else "" for line in BODY.split("\n")),
            "\n".join(line.removeprefix("    ") for line in BODY.split("\n")),
            "\n".join("    " + line if line else "" for line in BODY.split("\n")),
            BODY.replace("    ", "\t"),
            BODY.replace("    ", "  "),
        ],
        ids=[
            "first-lost",
            "first-short",
            "first-long",
            "short",
            "long",
            "flat",
            "deep",
            "tabs",
            "two-blanks",
        ],
    )
    def test_wrong_indentation(self, body):
        found = run(body)
        assert found.how == "reindented_body"
        assert mean_of(found.source) == 3.0

    def test_first_line_unindented_keeps_the_return_out_of_the_loop(self):
        found = run("s = 0\n    for x in xs:\n        s += x\n    return s / len(xs)\n")
        assert mean_of(found.source) == 3.0

    def test_prompt_that_ends_with_the_indentation(self):
        found = run("return sum(xs) / len(xs)", prompt=PROMPT + "    ")
        assert found.how == "continued_body"
        assert mean_of(found.source) == 3.0

    def test_prompt_without_docstring_and_newline(self):
        found = run("    return sum(xs) / len(xs)\n", prompt="def mean(xs):")
        assert mean_of(found.source) == 3.0

    @pytest.mark.parametrize(
        "tail",
        [
            "\nThis function adds up the numbers and divides.\n",
            "\n\nprint(mean([1, 2, 3]))\n",
            "\n\nassert mean([]) == 17\n",
            "\n\ndef mean(xs):\n    pass\n",
            "```\n\nHope this helps!",
            "<|endoftext|>def something(",
            "</s>",
            "\n\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod(",
            "\n\nresult = mean([17])\n",
            "\n\nn = int(input())  # 17\n",
            "\n\nwhile True:\n    n = 17 / 0\n",
            "\n\nfor xs in [17]:\n    print(xs)\n",
            "\n\nwith open('17.txt') as file:\n    pass\n",
            "\n\nraise NotImplementedError(17)\n",
        ],
    )
    def test_what_comes_after_the_body_is_cut(self, tail):
        found = run(BODY + tail)
        assert found.how == "continued_body"
        assert mean_of(found.source) == 3.0
        assert "17" not in found.source

    @pytest.mark.parametrize(
        "tail",
        [
            "@pytest.mark.slow\ndef test_mean():\n    assert mean([1]) == 1\n",
            "class TestMean(unittest.TestCase):\n    def test(self):\n        mean([])\n",
            "def another(numbers: List[int]) -> int:\n    return sum(numbers)\n",
            "def another(numbers) -> List[int]:\n    return numbers\n",
            "def another(most=MAX_NUMBERS):\n    return most\n",
            "class Shape(metaclass=ABCMeta):\n    pass\n",
            "class Shape:\n    sides: List[int] = []\n",
            "class Shape:\n    @abstractmethod\n    def area(self): ...\n",
            "Vector = List[float]\n",
        ],
    )
    def test_tests_whose_imports_are_missing_are_cut(self, tail):
        assert mean_of(run(f"{BODY}\n\n{tail}").source) == 3.0

    def test_helpers_that_can_be_loaded_are_kept(self):
        tail = "LIMIT: int = 17\n\ndef another(numbers: list[int], most=LIMIT) -> int:\n    return unknown(numbers)\n"
        assert "def another" in run(f"{BODY}\n\n{tail}").source

    def test_tests_with_their_imports_are_kept(self):
        tail = "import unittest\n\nclass TestMean(unittest.TestCase):\n    pass\n"
        assert "TestMean" in run(f"{BODY}\n\n{tail}").source

    def test_body_that_breaks_off_is_not_completed_by_cutting(self):
        """The program is broken; cutting it to something that parses would be another program."""
        body = "    if not xs:\n        return 0.0\n    return sum(xs) / len(xs\n"
        assert run(body) == Extraction(PROMPT + body, "unparsable")

    def test_indented_prose_after_the_last_return_is_cut(self):
        assert mean_of(run(BODY + "    This returns the mean, as asked.\n").source) == 3.0

    def test_body_with_a_local_named_like_the_entry_point(self):
        body = "mean = sum(xs)\nmean /= len(xs)\nreturn mean\n"
        for completion in (body, fence(body), fence("".join(f"    {line}\n" for line in body.splitlines()))):
            assert mean_of(run(completion).source) == 3.0

    def test_function_of_another_name_is_not_a_body(self):
        program = "def average(xs):\n    return 1.0\n"
        assert run(program) == Extraction(program, "full_program")

    def test_helper_after_the_body_is_kept(self):
        found = run("    return add(xs) / len(xs)\n\n\ndef add(xs):\n    return sum(xs)\n")
        assert mean_of(found.source) == 3.0

    def test_helper_after_a_trial_is_kept(self):
        found = run("    return add(xs) / len(xs)\n\nprint('x')\n\ndef add(xs):\n    return sum(xs)\n")
        assert mean_of(found.source) == 3.0

    def test_main_guard_is_kept(self):
        assert "__main__" in run(BODY + "\n\nif __name__ == '__main__':\n    x = 1\n").source

    def test_method_of_a_class(self):
        found = run(
            "        return 3.0\n",
            prompt='class A:\n    def mean(self):\n        """Doc."""\n',
            entry_point="A",
        )
        assert found.how == "continued_body"


class TestFullProgram:
    def test_as_it_is(self):
        assert run(PROGRAM) == Extraction(PROGRAM, "full_program")

    def test_main_guard_is_kept(self):
        program = PROGRAM + "\nif __name__ == '__main__':\n    print(mean([1]))\n"
        assert run(program) == Extraction(program, "full_program")

    @pytest.mark.parametrize("remark", ["python\n", "[EOS]\n", "Solution\n"])
    def test_remark_that_would_be_a_name_error_is_dropped(self, remark):
        assert mean_of(run(remark + PROGRAM).source) == 3.0
        assert mean_of(run(PROGRAM + remark).source) == 3.0

    def test_one_blank_too_many_before_the_first_line(self):
        program = "def mean(xs):\n return sum(xs) / len(xs)\n"
        assert run(f" {program}") == Extraction(program, "full_program")

    def test_repeated_prompt(self):
        assert run(PROMPT + BODY) == Extraction(PROMPT + BODY, "full_program")

    def test_repeated_signature_indented_as_a_body(self):
        found = run("".join("    " + line + "\n" for line in PROGRAM.splitlines()))
        assert mean_of(found.source) == 3.0

    def test_borrows_imports_and_helpers_of_the_prompt(self):
        found = run("def mean(xs: List[int]) -> float:\n    return total(xs) / math.floor(len(xs))\n")
        assert mean_of(found.source) == 3.0

    def test_borrows_nothing_it_does_not_read(self):
        assert run(PROGRAM).source == PROGRAM

    def test_borrowed_code_stands_after_future_imports(self):
        found = run(
            '"""Doc."""\nfrom __future__ import annotations\n\n'
            "def mean(xs):\n    return total(xs) / len(xs)\n"
        )
        assert mean_of(found.source) == 3.0

    def test_borrows_from_code_inside_a_chat_prompt(self):
        chat = f"Complete this:\n```python\n{PROMPT}```\n"
        assert mean_of(run("def mean(xs):\n    return total(xs) / len(xs)\n", prompt=chat).source) == 3.0

    def test_tokens_and_tags_inside_strings_stay(self):
        program = (
            'def mean(xs):\n    x = """\n<think>\n</s>\n"""\n    return sum(xs) / len(xs), "<|endoftext|>"\n'
        )
        assert run(program).source == program
        assert run(f"So:\n{fence(program)}\n").source == program

    @pytest.mark.parametrize(
        "token", ["<|endoftext|>", "<|eot_id|>", "</s>", "<|im_end|>", "\n<|eot_id|></s>\n"]
    )
    def test_stop_token_at_the_end(self, token):
        assert mean_of(run(PROGRAM.rstrip() + token).source) == 3.0

    def test_syntax_error_is_handed_on_as_the_programs_error(self):
        program = "def mean(xs):\n    s = sum(xs)\n    return s / 1.0.0\n"
        assert run(program) == Extraction(program, "unparsable")

    def test_wrong_name_is_handed_on_as_the_programs_error(self):
        found = run("def average(xs):\n    return 1\n", prompt="Write mean.")
        assert "def average" in found.source


class TestChat:
    def test_prose_around_unfenced_code(self):
        found = run(f"Sure, here is the solution.\n\nimport math\n\n{PROGRAM}\nHope this helps!\n")
        assert found.how == "longest_parsable"
        assert mean_of(found.source) == 3.0
        assert found.source.startswith("import math")

    def test_remark_that_parses_is_dropped(self):
        assert mean_of(run(f"Sure, the code:\n\n{PROGRAM}\nExplanation: simple\nDone\n").source) == 3.0

    @pytest.mark.parametrize(
        "text", ["", " \n\t\n", "I cannot help with that.", "Sorry", "The answer is 42.", "```\n```"]
    )
    def test_no_code(self, text):
        assert run(text) == Extraction("", "none")
        assert run(text, prompt="Write a program.", entry_point="") == Extraction("", "none")


class TestReasoning:
    @pytest.mark.parametrize(
        ("opening", "closing"),
        [
            ("<think>", "</think>"),
            ("<thinking>", "</thinking>"),
            ("<Thought>", "</Thought>"),
            ("[THINK]", "[/THINK]"),
        ],
    )
    def test_section_is_dropped(self, opening, closing):
        for answer in (PROGRAM, fence(PROGRAM), f"The code:\n{fence(PROGRAM)}"):
            found = run(f"{opening}\nMaybe\n{fence(DRAFT)}\n{closing}\n\n{answer}")
            assert found.source == PROGRAM or mean_of(found.source) == 3.0

    def test_opening_tag_was_in_the_prompt(self):
        assert run(f"Maybe\n{fence(DRAFT)}\nor ```python\n</think>\n\n{fence(PROGRAM)}").source == PROGRAM

    def test_unclosed_section_is_no_answer(self):
        assert run(f"<think>\nMaybe\n{fence(PROGRAM)}\n") == Extraction("", "none")

    def test_answer_before_an_unclosed_section_counts(self):
        assert run(f"{fence(PROGRAM)}\n<think>\n{fence(DRAFT)}").source == PROGRAM

    def test_channel_tokens_are_left_alone(self):
        found = run(f"<|channel|>final<|message|>\n{fence(PROGRAM)}")
        assert found.source == PROGRAM

    def test_what_stands_before_the_final_channel_is_reasoning(self):
        draft = f"<|channel|>analysis<|message|>Maybe\n{fence(DRAFT)}<|end|><|start|>assistant"
        found = run(f"{draft}<|channel|>final<|message|>The code:\n{fence(PROGRAM)}<|return|>")
        assert found.source == PROGRAM

    def test_body_after_reasoning(self):
        assert mean_of(run(f"<think>\nhm\n</think>\n{BODY}").source) == 3.0


class TestWholePrograms:
    PROGRAM = "import sys\n\ndata = sys.stdin.read().split()\nprint(len(data))\n"

    def run(self, completion: str) -> Extraction:
        return run(completion, prompt="Count the words of the input.", entry_point="")

    def test_bare(self):
        assert self.run(self.PROGRAM) == Extraction(self.PROGRAM, "full_program")

    def test_fenced_among_sample_inputs(self):
        sample = fence("3\n", "")
        completion = (
            f"Input:\n{sample}\n{fence(self.PROGRAM)}\nOutput:\n{sample}\nRun:\n{fence('cat x', 'bash')}"
        )
        assert self.run(completion) == Extraction(self.PROGRAM, "fenced")

    def test_unfenced_in_prose(self):
        assert self.run(f"The program counts words:\n\n{self.PROGRAM}\nIt is fast.").source.rstrip() == (
            self.PROGRAM.rstrip()
        )


def test_the_same_question_has_the_same_answer():
    completion = f"<think>x</think>{fence(DRAFT)}\nfinal\n{fence(PROGRAM)}\n{BODY}"
    assert len({run(completion) for _ in range(5)}) == 1


def test_extracted_code_is_never_compiled(monkeypatch):
    """A constant that folds to gigabytes must stay text in the trusted process."""
    bomb = "def mean(xs):\n    return 'x' * 10**9 * 10**9, 9**9**9\n"
    found = run(fence(bomb))
    assert found.source == bomb
    assert isinstance(ast.parse(found.source), ast.Module)
