"""The suites that the grader knows by name: what they are, and which bytes they are pinned to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["evalplus", "humaneval", "mbpp"]

_HUMANEVAL_PLUS = "https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.10/"
_MBPP_PLUS = "https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/"
_HUMANEVAL = "https://github.com/openai/human-eval/raw/master/data/"
_MBPP_PAGE = "https://github.com/google-research/google-research/tree/master/mbpp"


@dataclass(frozen=True, slots=True)
class Pin:
    """A known suite: its names, its file, and the hash that makes the file this suite and no other.

    ``sha256`` is of the file as stored, None for a suite that ships with the grader. ``content_sha256`` is of
    the unpacked file, for suites that are published unpacked: any packing of the same content is accepted.
    ``url`` is where the file can be downloaded, None where it is not published in this form.
    """

    name: str
    version: str
    description: str
    licence: str
    source: str
    file_name: str
    format: Format
    sha256: str | None
    content_sha256: str | None = None
    url: str | None = None
    aliases: tuple[str, ...] = ()


PINS: tuple[Pin, ...] = (
    Pin(
        name="humaneval+",
        version="v0.1.10",
        description="HumanEval+: 164 tasks, 124,253 inputs",
        licence="Apache-2.0",
        source="https://github.com/evalplus/humanevalplus_release",
        file_name="HumanEvalPlus.jsonl.gz",
        format="evalplus",
        sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
        url=_HUMANEVAL_PLUS + "HumanEvalPlus.jsonl.gz",
        aliases=("humaneval_plus", "humanevalplus"),
    ),
    Pin(
        name="humaneval+mini",
        version="v0.1.10",
        description="HumanEval+ with its inputs reduced to 2,677",
        licence="Apache-2.0",
        source="https://github.com/evalplus/humanevalplus_release",
        file_name="HumanEvalPlus-Mini.jsonl.gz",
        format="evalplus",
        sha256="91486741f1627101021fbe50523df08eebb5b0bf5e804b633dcd5ca3c14dbd2f",
        url=_HUMANEVAL_PLUS + "HumanEvalPlus-Mini.jsonl.gz",
        aliases=("humaneval_plus_mini", "humanevalplus-mini"),
    ),
    Pin(
        name="humaneval+noextreme",
        version="v0.1.10",
        description="HumanEval+ without extreme inputs",
        licence="Apache-2.0",
        source="https://github.com/evalplus/humanevalplus_release",
        file_name="HumanEvalPlus-NoExtreme.jsonl.gz",
        format="evalplus",
        sha256="298f79977b2663b8b8ab6b5fa50b17d6f23a92603d24f39e26203fe58c37eeda",
        url=_HUMANEVAL_PLUS + "HumanEvalPlus-NoExtreme.jsonl.gz",
        aliases=("humaneval_plus_noextreme", "humanevalplus-noextreme"),
    ),
    Pin(
        name="mbpp+",
        version="v0.2.0",
        description="MBPP+: 378 tasks, 41,015 inputs",
        licence="Apache-2.0",
        source="https://github.com/evalplus/mbppplus_release",
        file_name="MbppPlus.jsonl.gz",
        format="evalplus",
        sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
        url=_MBPP_PLUS + "MbppPlus.jsonl.gz",
        aliases=("mbpp_plus", "mbppplus"),
    ),
    Pin(
        name="mbpp+noextreme",
        version="v0.2.0",
        description="MBPP+ without extreme inputs",
        licence="Apache-2.0",
        source="https://github.com/evalplus/mbppplus_release",
        file_name="MbppPlus-NoExtreme.jsonl.gz",
        format="evalplus",
        sha256="72d32acaea73d5606cb97041b30d45bbda9435a675369d3e31965513ee94e564",
        url=_MBPP_PLUS + "MbppPlus-NoExtreme.jsonl.gz",
        aliases=("mbpp_plus_noextreme", "mbppplus-noextreme"),
    ),
    Pin(
        name="humaneval",
        version="v1",
        description="HumanEval: 164 tasks with the tests they were published with",
        licence="MIT",
        source="https://github.com/openai/human-eval",
        file_name="HumanEval.jsonl.gz",
        format="humaneval",
        sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        url=_HUMANEVAL + "HumanEval.jsonl.gz",
    ),
    Pin(
        name="mbpp",
        version="v1",
        description="MBPP: 974 crowd-sourced tasks with three asserts each",
        licence="CC-BY-4.0",
        source=_MBPP_PAGE,
        file_name="mbpp.jsonl.gz",
        format="mbpp",
        sha256="449c6d6ecf6ad39cc9a78e1227a9f18c57336ab635e896ba84fcd6704a2b8717",
        content_sha256="0b5e07b5b40fedd01c57b7c9177b79f8b2eebd72c304c928605d91a7237d2f33",
    ),
    Pin(
        name="mbpp-sanitized",
        version="v1",
        description="MBPP's 427 tasks that were edited by hand",
        licence="CC-BY-4.0",
        source=_MBPP_PAGE,
        file_name="sanitized-mbpp.json.gz",
        format="mbpp",
        sha256="10d9ffa25b9061a2e1d89f3298ab579669d048bc89eabc665b35a2e2b8e0a4d8",
        content_sha256="8ac32b2799150228e2d745aed09c870b7e4444246d4727d1004576207ef40769",
        aliases=("mbpp_sanitized", "sanitized-mbpp"),
    ),
    Pin(
        name="starter",
        version="v1",
        description="The grader's own small suite: no download, for a first run and for tests",
        licence="as the grader",
        source="ships with the grader",
        file_name="starter.jsonl",
        format="evalplus",
        sha256=None,
    ),
)

PIN_OF_NAME: dict[str, Pin] = {name: pin for pin in PINS for name in (pin.name, *pin.aliases)}
