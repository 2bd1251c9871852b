"""What people read: aligned, also where it is narrow, and nothing that steers a terminal."""

import json
import os
import subprocess

import pytest

from cloudapp.local.places import PROJECT
from cloudctl.output import Column, Output, clean, cut, width
from cloudctl.stream import Message, lines_of, messages_of
from tests.cloudctl.conftest import Ctl

ESC = "\x1b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (f"{ESC}[31mred{ESC}]0;title\x07", "[31mred]0;title"),
        ("two\nlines\tand\rmore", "two lines andmore"),
        ("c1 \x9b31m", "c1 31m"),
        ("\u202egnp.exe", "gnp.exe"),
        ("Bäume, 木, 👩‍👩‍👧", "Bäume, 木, 👩‍👩‍👧"),
    ],
)
def test_nothing_steers_the_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_widths_are_those_of_the_terminal() -> None:
    assert [width(text) for text in ("abc", "木", "e\u0301", "")] == [3, 2, 1, 0]
    assert cut("abcdef", 4) == "abc…"
    assert cut("木木木", 4) == "木…"


def test_a_table_is_aligned_also_with_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).table([Column("A"), Column("B")], [["木", "x"], ["abc", "y"]])
    assert capsys.readouterr().out == "A    B\n木   x\nabc  y\n"


def test_a_table_gives_way_and_becomes_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column("SLUG"), Column("NAME", may_be_cut=True)]
    rows = [["trees-of-kyiv", "Trees of Kyiv and around"], ["b", "B"]]
    out = Output(False)
    out.width = 30
    out.table(columns, rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "trees-of-kyiv  Trees of Kyiv …"
    assert max(map(width, lines)) == 30

    out.width = 20
    out.table(columns, rows)
    blocks = capsys.readouterr().out.split("\n\n")
    assert blocks[0] == "SLUG  trees-of-kyiv\nNAME  Trees of Kyiv and around"
    assert len(blocks) == 2


def test_a_pipe_gets_all_of_it_and_no_colours(ctl: Ctl, shared: str) -> None:
    ctl.environment["COLUMNS"] = "20"
    shown = ctl.ok("list", "--search", shared).out
    assert ESC not in shown
    assert shown.splitlines()[0].split() == ["SLUG", "STATUS", "NAME", "CREATED"]


def test_a_terminal_gets_colours_unless_they_are_not_wanted(ctl: Ctl, shared: str) -> None:
    assert f"{ESC}[32mrunning" in ctl.on_terminal("show", shared)[1]
    assert ESC not in ctl.on_terminal("show", shared, NO_COLOR="1")[1]


def test_a_narrow_terminal_gets_blocks(ctl: Ctl, shared: str) -> None:
    _, shown = ctl.on_terminal("list", "--search", shared, columns=24, NO_COLOR="1")
    assert shown.splitlines()[0] == "SLUG     shared"


def test_a_pipe_that_is_closed_ends_it_quietly(ctl: Ctl, shared: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        ctl.command("show", shared),
        env=ctl.environment,
        cwd=PROJECT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# --- streams -------------------------------------------------------------------------------------


def test_messages_are_read_however_they_are_cut() -> None:
    # Some libraries take \u2028 for the end of a line; JSON may hold it.
    data = json.dumps("x\u2028y", ensure_ascii=False)
    whole = f"retry: 2000\n\n: nothing new\n\nid: 7\ndata: {data}\n\n".encode()
    whole += b"event: end\r\ndata: {}\r\n\r\n"
    wanted = [Message(data, "7"), Message("{}", "", "end")]
    for size in (1, 3, len(whole)):
        chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert list(messages_of(lines_of(chunks))) == wanted


def test_what_is_cut_off_is_no_message() -> None:
    assert list(messages_of(lines_of([b'id: 8\ndata: {"half']))) == []
    assert list(messages_of(lines_of([b"id: 8\ndata: {}\n"]))) == []
