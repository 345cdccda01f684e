"""Docs that a program can check against the code."""

from __future__ import annotations

import re
from pathlib import Path

from interpedia_shared.jobs.errors import JOB_PAUSED, TASK_FAILED, WORKER_DIED
from interpedia_shared.problems import Problem

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")


def _problems(base: type[Problem] = Problem) -> list[type[Problem]]:
    return [base, *(found for child in base.__subclasses__() for found in _problems(child))]


def test_every_problem_has_one_page_and_every_page_a_problem() -> None:
    slugs = [p.slug for p in _problems() if p.slug != "about:blank" and "slug" in vars(p)]
    slugs += [Problem.slug, JOB_PAUSED, TASK_FAILED, WORKER_DIED]
    assert sorted(set(slugs)) == sorted({page.stem for page in (ROOT / "docs/problems").glob("*.md")})


def test_problem_pages_say_title_and_status() -> None:
    for problem in _problems():
        if problem.slug == "about:blank":
            continue
        page = (ROOT / f"docs/problems/{problem.slug}.md").read_text()
        assert page.startswith(f"# {problem.title}\n"), problem
        assert f"Type `{problem.slug}`, status {problem.status}." in page, problem
        assert "## When" in page
        assert "## What to do" in page


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text())
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


def test_decisions_are_short_and_complete() -> None:
    for decision in (ROOT / "docs/decisions").glob("*.md"):
        text = decision.read_text()
        assert len(text.splitlines()) <= 60, decision
        for section in ("## Context", "## Decision", "## Consequences", "## Alternatives"):
            assert section in text, (decision, section)


def test_make_targets_named_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"`make ([a-z-]+)", document.read_text()):
            assert target in targets, (document, target)
