"""The programs in README.md and docs/ do what the pages say; README.md in this folder explains the comments."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testkit.source import TREE

PAGES = [
    TREE / "README.md",
    *sorted((TREE / "docs").rglob("*.md")),
    *(path for path in sorted((TREE / "examples").rglob("*.md")) if ".pytest_cache" not in path.parts),
]
STRICT = [TREE / "README.md", TREE / "docs" / "tutorial.md"]

BLOCK = re.compile(
    r"(?:^<!-- (?P<kind>run|serve|file|output|fragment|name-server)(?:: (?P<argument>\S+))? -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
GENERATED = re.compile(r"^<!-- (\w+):begin -->$.*?^<!-- \1:end -->$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block, and the comment before it."""

    kind: str
    argument: str
    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page that somebody wrote."""
    source = page.read_text("utf-8")
    # blank lines in their place keep the line numbers right
    source = GENERATED.sub(lambda match: "\n" * match[0].count("\n"), source)
    for match in BLOCK.finditer(source):
        line = source.count("\n", 0, match.start("text")) + 1
        yield Block(match["kind"] or "", match["argument"] or "", match["language"], match["text"], line)


def is_run(page: Path) -> bool:
    return any(block.kind in ("run", "serve", "name-server") for block in blocks(page))


def name(page: Path) -> str:
    return page.relative_to(TREE).as_posix()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


def expected(text: str) -> re.Pattern[str]:
    """A pattern for an output block, where ``...`` is any text."""
    parts = re.split(r"^\.\.\.\n|\.\.\.", text.strip(), flags=re.MULTILINE)
    return re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=name)
def test_programs_on_the_page_work(
    page: Path, tmp_path: Path, start: Callable[..., Any], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    port = free_port()
    server: Any = None
    output = ""
    settings: dict[str, str] = {}
    for number, block in enumerate(blocks(page)):
        where = f"{name(page)}, line {block.line}"
        text = block.text.replace("4444", port)
        path = tmp_path / (block.argument if "." in block.argument else f"block{number}.py")
        if block.kind == "output":
            if not output and server is not None:
                server.process.terminate()
                output = server.finish()
            assert expected(text).search(output), f"{where}: this was printed:\n{output}"
            continue
        if block.kind == "name-server":
            (uri,) = start("-m", "pyroplug", "ns", "-n", "localhost", "-p", "0", "-s", "memory").wait_until_ready()
            settings["PYRO_NS_PORT"] = uri.rpartition(":")[2]
        if block.kind not in ("run", "serve", "file"):
            continue
        path.write_text(text, "utf-8")
        if block.kind == "serve":
            if server is not None:
                server.process.terminate()
                server.finish()
            server, output = start(path, env=settings), ""
            server.wait_until_ready()
        elif block.kind == "run":
            result = run(path, env=settings)
            output = result.stdout
            code = int(block.argument or 0)
            assert result.returncode == code, f"{where}: ended with {result.returncode}:\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_on_the_page_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text, f"{name(page)}, line {block.line}")


@pytest.mark.parametrize("page", STRICT, ids=name)
def test_each_program_on_the_page_says_what_it_is(page: Path) -> None:
    silent = [block.line for block in blocks(page) if block.language == "python" and not block.kind]
    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text("utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached() -> None:
    """From the README, through links."""
    seen: set[Path] = set()
    waiting = [TREE / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        text = FENCED.sub("", page.read_text("utf-8"))
        waiting += [page.parent / link for link in LINK.findall(text) if "://" not in link]
    assert [name(page) for page in PAGES if page.resolve() not in seen] == []
