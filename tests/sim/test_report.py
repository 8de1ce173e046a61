from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import av
import cv2
import numpy as np
import pytest

from sim import report
from sim.report import EpisodeRecord, Row, write_report
from sim.report_video import encode_mp4, enlarge

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page read strictly: every element is closed in order. Keeps attributes and texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))

    def attributes(self, tag: str, name: str) -> list[str]:
        return [
            attributes[name] for found, attributes in self.elements if found == tag and name in attributes
        ]

    def words(self, tag: str) -> list[str]:
        return [text for found, text in self.texts if found == tag]


def gradient(shade: int, size: int = 128) -> np.ndarray:
    """A picture (size, size, 3) that differs with `shade` 0..255."""
    across = np.linspace(0, 255, size, dtype=np.uint8)
    return np.stack(
        [np.tile(across, (size, 1)), np.full((size, size), shade, np.uint8), np.tile(across, (size, 1)).T], 2
    )


@pytest.fixture
def episode() -> EpisodeRecord:
    count = 12
    return EpisodeRecord(
        seed=7,
        goal_image=gradient(200),
        frames=np.stack([gradient(20 * i) for i in range(count)]),
        fps=10,
        distance_times_s=np.arange(count) / 10,
        distances_m=np.linspace(0.12, 0.011, count),
        energy_times_s=np.arange(18) / 15,
        energies=np.array([np.nan, *np.linspace(20, 1, 17)]),
        success=True,
        held=True,
        latencies_ms=np.linspace(20, 60, 15),
    )


@pytest.fixture
def written(tmp_path):
    """Writes a report and reads it back."""

    def write(
        *episodes: EpisodeRecord, table: tuple[Row, ...] = (), title: str = "a run"
    ) -> tuple[str, Page]:
        path = tmp_path / "out" / "report.html"
        write_report(path, title, table, episodes)
        text = path.read_text(encoding="utf-8")
        return text, Page(text)

    return write


def film_of(page: Page) -> list[np.ndarray]:
    kind, data = page.attributes("video", "src")[0].split(",", 1)
    assert kind == "data:video/mp4;base64"
    with av.open(io.BytesIO(base64.b64decode(data))) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_the_report_is_well_formed_and_fetches_nothing(written, episode):
    text, page = written(episode, replace(episode, seed=8))
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert re.findall(r"(?:@import|url\((?!#))", text) == []


def test_the_film_in_the_report_has_every_frame_in_order(written, episode):
    _, page = written(episode)
    frames = film_of(page)
    assert len(frames) == len(episode.frames)
    green = [float(frame[:, :, 1].mean()) for frame in frames]
    assert np.allclose(green, [20 * i for i in range(len(frames))], atol=6)


def test_the_goal_picture_is_shown_to_the_pixel(written, episode):
    _, page = written(episode)
    data = base64.b64decode(page.attributes("img", "src")[0].split(",", 1)[1])
    shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(shown, enlarge(episode.goal_image))
    assert np.array_equal(shown[::3, ::3], episode.goal_image)


def test_the_table_says_what_it_was_given(written, episode):
    rows = (
        Row("success", "9 of 10 (90 %)", "interval 60 to 98 %"),
        Row("frame → command", "34 ms p50 & <58 ms p99"),
    )
    _, page = written(episode, table=rows, title="push <mode2>")
    assert page.words("th") == [row.name for row in rows]
    assert page.words("td") == [row.value for row in rows]
    assert rows[0].note in page.words("span")
    assert page.words("h1") == page.words("title") == ["push <mode2>"]


def test_every_card_says_how_its_episode_ended(written, episode):
    ends = [(True, True), (True, False), (False, False)]
    records = [replace(episode, seed=i, success=s, held=h) for i, (s, h) in enumerate(ends)]
    _, page = written(*records, replace(episode, seed=9, note="the gate stopped the arm"))
    badges = [text for text in page.words("span") if text[0] in "✓○✗"]
    assert badges == ["✓ held for 1 s", "○ reached, not held", "✗ missed", "✓ held for 1 s"]
    assert page.words("a") == ["✓ 0", "○ 1", "✗ 2", "✓ 9"]
    assert page.attributes("article", "id") == ["seed-0", "seed-1", "seed-2", "seed-9"]
    assert "the gate stopped the arm" in page.words("p")


def test_charts_are_whole_svgs_whose_ids_do_not_collide(written, episode):
    text, page = written(episode, replace(episode, seed=8))
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 3  # the latency of all, and the curves of each
    for chart in charts:
        ElementTree.fromstring(chart)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_charts_have_titles_units_and_the_colour_of_the_page(written, episode):
    text, page = written(episode)
    labels = " ".join(page.words("text"))
    for words in ("distance to the goal", "cm", "energy of the plan", "time since the start [s]"):
        assert words in labels
    assert "15 commands, the slowest took 60.0 ms" in labels
    assert "p50 40.0 ms" in labels and "p99 59.6 ms" in labels
    assert "frame → command [ms]" in labels
    assert "currentColor" in text and "#010203" not in text and "#000000" not in text


def test_a_run_without_pictures_or_commands_is_reported_too(written, episode):
    nothing = np.zeros(0)
    empty = replace(
        episode, frames=np.zeros((0, 1, 1, 3), np.uint8), distance_times_s=nothing, distances_m=nothing,
        energy_times_s=nothing, energies=nothing, latencies_ms=nothing, success=False, held=False,
    )  # fmt: skip
    _, page = written(empty)
    assert "No command was measured." in page.words("p")
    assert page.attributes("video", "src") == []


def test_a_report_that_cannot_be_finished_leaves_the_old_one_alone(tmp_path, episode, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the report of yesterday")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(path, "a run", (), [episode])
    assert path.read_text() == "the report of yesterday"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("shape", [(3, 41, 77, 3), (1, 480, 640, 3)])
def test_films_of_any_picture_size_play(shape):
    film = encode_mp4(np.full(shape, 90, np.uint8), fps=10)
    with av.open(io.BytesIO(film)) as opened:
        assert len(list(opened.decode(video=0))) == shape[0]
