"""The page in a real browser: every hand movement that the guide describes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.viewer.conftest import Page, Serve
from tests.viewer.test_app import CSV, RESULTS, ready
from tspcli.annotations.editing import open_for_editing
from tspcli.sampling import Sampling
from tspcli.viewer.workspace import Heads

playwright = pytest.importorskip("playwright.sync_api")

PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; skips where there is none."""
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:
        # Without its sandbox where the tests run as root, in containers.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=program, args=root)
        yield browser
        browser.close()


class Tab:
    """A tab with a page in it, which has to stay free of errors and foreign requests."""

    def __init__(self, browser: Any, page: Page, fragment: str = "") -> None:
        self.page = page
        self.tab = browser.new_page(viewport={"width": 1280, "height": 720})
        self.tab.set_default_timeout(PATIENCE_MS)
        self.problems: list[str] = []
        own = f"http://127.0.0.1:{page.port}/"
        self.tab.on("console", lambda m: m.type == "error" and self.problems.append(m.text))
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on(
            "request",
            lambda r: r.url.startswith((own, "blob:", "data:")) or self.problems.append(r.url),
        )
        self.tab.goto(page.address + fragment)
        self.tab.wait_for_selector("body[data-ready]")

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))

    def until(self, condition: str) -> None:
        """Wait until some JavaScript is true.

        The driver's own waiting would evaluate text in the page, which the page forbids.
        """
        for _ in range(PATIENCE_MS // 50):
            if self.tab.evaluate(condition):
                return
            self.tab.wait_for_timeout(50)
        raise AssertionError(condition)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    @property
    def time_s(self) -> float:
        minutes, seconds = self.text("#clock").split(" / ")[0].split(":")
        return 60 * int(minutes) + float(seconds)

    def wait_for_time(self, time_s: float) -> None:
        minutes, seconds = divmod(time_s, 60)
        shown = f"{int(minutes)}:{seconds:06.3f}"
        self.until(f"document.getElementById('clock').textContent.startsWith('{shown}')")

    def box(self, selector: str = "#timeline") -> dict[str, float]:
        found = self.tab.locator(selector).bounding_box()
        assert found is not None
        return dict(found)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one point of the timeline to another, in shares of its width and in pixels down."""
        box = self.box()
        mouse = self.tab.mouse
        mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1])
        mouse.down()
        mouse.move(box["x"] + (start[0] + end[0]) / 2 * box["width"], box["y"] + end[1], steps=3)
        mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1], steps=3)
        mouse.up()


@pytest.fixture
def open_tab(chromium: Any, serve: Serve) -> Iterator[Any]:
    # After `serve`, so that tabs are closed before what serves them.
    tabs: list[Tab] = []

    def start(page: Page, fragment: str = "") -> Tab:
        tabs.append(Tab(chromium, page, fragment))
        return tabs[-1]

    yield start
    for tab in tabs:
        tab.tab.close()
        assert tab.problems == []


@pytest.fixture
def page(serve: Serve, scene_folder: Path, tmp_path: Path, two_heads: Heads) -> Page:
    (tmp_path / "actions.csv").write_text(CSV)
    (tmp_path / "found.json").write_text(json.dumps(RESULTS))
    return ready(
        serve(
            scene_folder / "feats.h5",
            videos=scene_folder / "videos",
            annotations_path=tmp_path / "actions.csv",
            predictions_path=tmp_path / "found.json",
            load_heads=lambda: two_heads,
        )
    )


DURATION_S = 8.5  # of v_a, as its store states
ANNOTATIONS_Y = 20 + 3 + 46 + 3 + 14 + 6  # below the ruler and the thumbnails


def test_open_seek_step_and_play(open_tab: Any, page: Page):
    tab = open_tab(page)
    assert tab.text(".video-row[aria-selected=true] b") == "v_a"
    box = tab.box()
    tab.tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    assert tab.time_s == pytest.approx(DURATION_S / 2, abs=0.05)
    tab.until("!document.getElementById('video').seeking")
    shown_s = tab.tab.evaluate("document.getElementById('video').currentTime")
    assert shown_s == pytest.approx(tab.time_s, abs=0.01)
    before = tab.time_s
    tab.press("ArrowRight")
    assert tab.time_s - before == pytest.approx(1 / 30, abs=0.02)
    tab.press("Shift+ArrowRight")
    tab.press("Home", " ")
    tab.until("document.getElementById('video').currentTime > 0.2")
    tab.press(" ")
    assert tab.time_s > 0.2


def test_a_video_that_the_browser_cannot_play_is_decoded_frame_by_frame(open_tab: Any, page: Page):
    tab = open_tab(page, "#video=v_b")
    tab.until(
        "!document.getElementById('still').hidden && document.getElementById('still').naturalWidth"
    )
    # The browser says itself that it cannot play it.
    tab.problems = [p for p in tab.problems if "/file" not in p]
    first = tab.tab.get_attribute("#still", "src")
    tab.press("ArrowRight")
    tab.until(f"document.getElementById('still').src !== '{first}'")
    assert tab.time_s == pytest.approx(1 / 30, abs=0.01)
    tab.press(" ")
    tab.until("parseFloat(document.getElementById('clock').textContent.slice(2)) > 0.5")
    tab.press(" ")


def test_zooming_and_panning_with_the_wheel(open_tab: Any, page: Page):
    tab = open_tab(page)
    box = tab.box()
    tab.tab.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    tab.tab.mouse.wheel(0, -600)
    tab.press("Escape")
    # The time under the pointer stays where it is.
    tab.tab.mouse.click(box["x"] + box["width"] / 4, box["y"] + 5)
    assert tab.time_s == pytest.approx(DURATION_S / 4, abs=0.05)
    tab.tab.mouse.click(box["x"] + 1, box["y"] + 5)
    left = tab.time_s
    assert left > 0.5
    tab.tab.mouse.wheel(200, 0)
    tab.tab.mouse.click(box["x"] + 1, box["y"] + 5)
    assert tab.time_s > left + 0.1
    tab.press("0")
    tab.tab.mouse.click(box["x"] + 1, box["y"] + 5)
    assert tab.time_s < 0.05


def test_the_threshold_decides_which_predictions_are_shown(open_tab: Any, page: Page):
    tab = open_tab(page)
    drawn = "document.getElementById('timeline').toDataURL()"
    before = tab.tab.evaluate(drawn)
    tab.tab.fill("#threshold", "0.02")
    tab.tab.wait_for_timeout(100)
    assert tab.text("#threshold-value") == "0.020"
    assert tab.tab.evaluate(drawn) != before


def test_mark_name_save_undo_redo(open_tab: Any, page: Page, tmp_path: Path):
    tab = open_tab(page)
    box = tab.box()
    tab.tab.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 5)
    tab.press("i")
    tab.tab.mouse.click(box["x"] + 0.625 * box["width"], box["y"] + 5)
    tab.press("o", "Enter")
    tab.tab.keyboard.type("spin")
    tab.press("Enter")
    assert "spin" in tab.text("#segments")
    tab.press("Control+z")
    assert "spin" not in tab.text("#segments")
    tab.press("Control+Shift+z", "Control+s")
    tab.until("document.getElementById('notice').textContent.startsWith('Saved')")
    saved = (tmp_path / "actions.csv").read_text().splitlines()
    assert saved[1] == "v_a,1,2,jump,keep"
    video, start, end, label, _ = saved[2].split(",")
    assert (video, label) == ("v_a", "spin")
    assert float(start) == pytest.approx(0.5 * DURATION_S, abs=0.05)
    assert float(end) == pytest.approx(0.625 * DURATION_S, abs=0.05)
    assert tab.tab.is_disabled("#save")


def test_drag_a_border_relabel_delete_accept(open_tab: Any, page: Page, tmp_path: Path):
    tab = open_tab(page)
    tab.drag((2 / DURATION_S, ANNOTATIONS_Y), (3 / DURATION_S, ANNOTATIONS_Y))
    tab.tab.fill("#label", "leap")
    tab.tab.click("#apply")
    # With all predictions shown, that at 4 to 5 s is accepted by the keyboard alone.
    tab.tab.fill("#threshold", "0.02")
    tab.tab.focus("#timeline")
    tab.press("Home", "}", "}", "}")
    assert tab.text("#apply").startswith("Accept")
    tab.press("Enter", "Control+s")
    tab.until("document.getElementById('notice').textContent.startsWith('Saved')")
    saved = (tmp_path / "actions.csv").read_text().splitlines()
    start, end, label = saved[1].split(",")[1:4]
    assert (start, label) == ("1", "leap")
    assert float(end) == pytest.approx(3, abs=0.05)
    assert saved[2].startswith("v_a,4,5,jump")
    tab.press("Home", "]", "Delete", "Control+s")
    tab.until("document.getElementById('save').disabled")
    assert "leap" not in (tmp_path / "actions.csv").read_text()


def test_a_conflict_shows_both_versions(open_tab: Any, page: Page, tmp_path: Path):
    tab = open_tab(page)
    tab.press("]", "Delete")
    theirs = CSV.replace("1,2,jump", "1.5,2,jump")
    (tmp_path / "actions.csv").write_text(theirs)
    tab.press("Control+s")
    tab.tab.wait_for_selector("#conflict[open]")
    assert "0:01.50–0:02.00 jump" in tab.text("#versions")
    assert (tmp_path / "actions.csv").read_text() == theirs
    tab.tab.select_option("#versions select", "theirs")
    tab.tab.click("#resolve")
    tab.until("!document.getElementById('conflict').open")
    assert "0:01.50" in tab.text("#segments")
    tab.press("]", "Delete", "Control+s")
    tab.until("document.getElementById('notice').textContent.startsWith('Saved')")
    assert "jump" not in (tmp_path / "actions.csv").read_text()
    # The browser reports the refused save as an error of its own.
    tab.problems = [p for p in tab.problems if "409" not in p]


def test_a_conflict_that_is_left_open_stays_one(open_tab: Any, page: Page, tmp_path: Path):
    tab = open_tab(page)
    tab.press("]", "Delete")
    theirs = CSV.replace("1,2,jump", "1.5,2,jump")
    (tmp_path / "actions.csv").write_text(theirs)
    for _ in range(2):
        tab.press("Control+s")
        tab.tab.wait_for_selector("#conflict[open]")
        tab.tab.click("#later")
    assert (tmp_path / "actions.csv").read_text() == theirs
    tab.problems = [p for p in tab.problems if "409" not in p]
    tab.tab.on("dialog", lambda dialog: dialog.accept())


def labelled(tab: Tab, label: str, start: str, end: str) -> None:
    """Add a segment through the panel."""
    tab.press("Escape")
    for field, text in (("#from", start), ("#to", end), ("#label", label)):
        tab.tab.fill(field, text)
    tab.tab.click("#apply")


def test_two_tabs_do_not_undo_each_other(open_tab: Any, page: Page, tmp_path: Path):
    one = open_tab(page, "#video=v_b")
    one.problems.clear()
    one.tab.click(".video-row >> text=v_a")
    one.until("document.getElementById('segments').textContent.includes('jump')")
    other = open_tab(page, "#video=v_b")
    labelled(other, "theirs", "0.5", "1")
    other.press("Control+s")
    other.until("document.getElementById('notice').textContent.startsWith('Saved')")
    labelled(one, "mine", "3", "4")
    one.press("Control+s")
    one.tab.wait_for_selector("#conflict[open]")
    one.tab.click("#resolve")
    one.until("document.getElementById('notice').textContent.startsWith('Saved')")
    one.tab.click(".video-row >> text=v_b")
    one.until("document.getElementById('segments').textContent.includes('theirs')")
    labelled(one, "more", "2", "2.5")
    one.press("Control+s")
    one.until("document.getElementById('save').disabled")
    saved = (tmp_path / "actions.csv").read_text()
    for label in ("jump", "run", "mine", "theirs", "more"):
        assert f",{label}," in saved
    for tab in (one, other):
        tab.problems = [p for p in tab.problems if "409" not in p and "/file" not in p]


def test_saving_video_after_video(open_tab: Any, page: Page, tmp_path: Path):
    tab = open_tab(page)
    tab.tab.click(".video-row >> text=v_c")
    tab.until("document.getElementById('segments').textContent.includes('run')")
    tab.tab.click(".video-row >> text=v_a")
    tab.until("document.getElementById('segments').textContent.includes('jump')")
    labelled(tab, "one", "3", "4")
    tab.press("Control+s")
    tab.until("document.getElementById('notice').textContent.startsWith('Saved')")
    tab.tab.click(".video-row >> text=v_c")
    tab.until("document.getElementById('segments').textContent.includes('run')")
    labelled(tab, "two", "2", "3")
    tab.press("Control+s")
    tab.until("document.getElementById('save').disabled")
    saved = (tmp_path / "actions.csv").read_text().splitlines()[1:]
    assert saved == ["v_a,1,2,jump,keep", "v_a,3,4,one,", "v_c,0.5,0.9,run,", "v_c,2,3,two,"]


def test_changing_the_label_alone_keeps_the_times(open_tab: Any, page: Page, tmp_path: Path):
    (tmp_path / "actions.csv").write_text("video,start,end,label\nv_a,1.2345678,9.7654321,jump\n")
    page.workspace.document = open_for_editing(tmp_path / "actions.csv")
    tab = open_tab(page)
    tab.press("]")
    tab.tab.fill("#label", "leap")
    tab.tab.click("#apply")
    tab.press("Control+s")
    tab.until("document.getElementById('notice').textContent.startsWith('Saved')")
    assert (tmp_path / "actions.csv").read_text().splitlines()[1] == "v_a,1.2345678,9.7654321,leap"


def test_a_border_dragged_over_the_other_one_changes_nothing(open_tab: Any, page: Page):
    tab = open_tab(page)
    tab.drag((2 / DURATION_S, ANNOTATIONS_Y), (0.2 / DURATION_S, ANNOTATIONS_Y))
    assert "0:01.00–0:02.00" in tab.text("#segments")
    assert tab.tab.is_disabled("#undo")
    assert tab.tab.is_disabled("#save")


def test_finding_moments_like_a_segment(open_tab: Any, page: Page):
    tab = open_tab(page)
    tab.press("]", "f")
    tab.tab.wait_for_selector("#moments .item")
    tab.tab.click("#moments .item >> nth=0")
    tab.until("document.getElementById('loop').checked")
    tab.press(" ")


def test_names_and_labels_are_text(open_tab: Any, serve: Serve, tmp_path: Path):
    odd = '<img src=x onerror="document.title=1">'
    turned = "a\u202egpj.exe"
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        for name in (odd, turned):
            file[name.replace("/", "%2F")] = rows
    (tmp_path / "a.csv").write_text(
        f'video,start,end,label\n"{odd.replace(chr(34), chr(34) * 2)}",1,2,"<b>x</b>"\n'
    )
    page = serve(tmp_path / "odd.h5", annotations_path=tmp_path / "a.csv", sampling=Sampling())
    tab = open_tab(page)
    names = tab.tab.locator(".video-row b").all_inner_texts()
    assert odd in names
    assert "a⟨U+202E⟩gpj.exe" in names
    tab.tab.click(".video-row >> text=onerror")
    tab.tab.wait_for_selector("#segments .item")
    assert "<b>x</b>" in tab.text("#segments")
    assert tab.tab.evaluate("document.querySelectorAll('main img').length") == 1


def test_ten_thousand_videos_scroll(open_tab: Any, serve: Serve, tmp_path: Path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in range(10_000):
            file[f"v_{number:05d}"] = np.zeros((1, 2), np.float32)
    tab = open_tab(serve(tmp_path / "many.h5", sampling=Sampling()))
    assert tab.text("#count") == "10,000 videos"
    tab.tab.evaluate("document.getElementById('list').scrollTop = 5000 * 44")
    tab.tab.wait_for_selector(".video-row >> text=v_05003")
    assert tab.tab.locator(".video-row").count() < 60
    tab.press("/")
    tab.tab.keyboard.type("9999")
    tab.until("document.querySelectorAll('.video-row').length === 1")


def test_ten_hours_at_stride_one(open_tab: Any, serve: Serve, tmp_path: Path):
    """At most about as many points as pixels are sent, whatever is in sight."""
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("long", data=rng.normal(size=(540_000, 8)).astype(np.float32))
    page = serve(tmp_path / "long.h5", sampling=Sampling(stride=1))
    tab = open_tab(page)
    sent: list[str] = []
    tab.tab.on("request", lambda request: "/tile" in request.url and sent.append(request.url))
    box = tab.box()
    tab.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(12):
        tab.tab.mouse.wheel(0, -600)
        tab.tab.wait_for_timeout(60)
    tab.tab.wait_for_timeout(300)
    # Tiles of 512 points: the levels passed through, three or four tiles each.
    assert 10 < len(sent) < 60
    assert len(set(sent)) == len(sent)


def test_every_key_stands_in_the_list_of_keys(open_tab: Any, page: Page):
    tab = open_tab(page)
    tab.press("?")
    tab.tab.wait_for_selector("#keys[open]")
    listed = tab.tab.locator("#keys-list dt").all_inner_texts()
    assert len(listed) == len(set(listed)) >= 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_background(open_tab: Any, page: Page, scheme: str):
    """WCAG's contrast of 4.5 for the two inks on both backgrounds."""
    tab = open_tab(page)
    tab.tab.emulate_media(color_scheme=scheme)
    read = "n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim()"
    colors = {n: tab.tab.evaluate(read, n) for n in ("ink", "quiet", "warn", "back", "panel")}

    def light(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ink in ("ink", "quiet", "warn"):
        for paper in ("back", "panel"):
            bright, dark = sorted((light(colors[ink]), light(colors[paper])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)
