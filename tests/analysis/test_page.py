"""The page of features: it works in a browser, without network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tspcli.analysis import PlotData, write_page
from tspcli.analysis.page import page
from tspcli.cli.main import cli


class TestPage:
    @pytest.fixture
    def chromium(self) -> str:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
        return program

    def load(self, chromium: str, path: Path, profile: Path) -> tuple[str, list[str]]:
        """(The page's DOM after its scripts ran, messages on its console)."""
        result = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                "--enable-logging=stderr",
                "--dump-dom",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]

    def test_opens_without_network_and_without_complaints(
        self, chromium: str, data: PlotData, tmp_path: Path
    ) -> None:
        path = tmp_path / "page.html"
        write_page(data, path)
        dom, console = self.load(chromium, path, tmp_path / "profile")
        assert console == []
        assert 'data-ready="yes"' in dom
        # Drawn: two views with their matrices, three frames each, and blocks for the segments.
        assert dom.count("Self-similarity matrix") >= 2
        assert dom.count('alt="frame at') == 2 * len(data.thumbnails)
        assert "separated by" in dom

    def test_the_matrix_has_the_time_axis_of_the_strips(
        self, chromium: str, data: PlotData, tmp_path: Path
    ) -> None:
        assert data.views[0].edges_s[0] == 0
        views = [replace(view, edges_s=view.edges_s + 9.0) for view in data.views]
        script = (
            "<script>const at = q => [...document.querySelectorAll(q)].map(e => {"
            "const r = e.getBoundingClientRect(); return [r.left, r.right]});"
            "document.title = JSON.stringify({bar: at('.segments span'), block: at('.matrix rect'),"
            "strip: at('.colors canvas'), matrix: at('.matrix canvas')});</script></body>"
        )
        path = tmp_path / "page.html"
        path.write_text(page(replace(data, views=views)).replace("</body>", script))
        dom, _ = self.load(chromium, path, tmp_path / "profile")
        places = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
        assert len(places["bar"]) == 2 * len(data.segments) and len(places["matrix"]) == 2
        for strip, matrix in (("bar", "block"), ("strip", "matrix")):
            np.testing.assert_allclose(places[strip], places[matrix], atol=2)

    def test_answers_to_the_keyboard(self, chromium: str, data: PlotData, tmp_path: Path) -> None:
        script = (
            "<script>const m = document.querySelector('.matrix');"
            "for (const key of ['ArrowDown', 'ArrowRight', 'ArrowRight'])"
            "m.dispatchEvent(new KeyboardEvent('keydown', {key}));</script></body>"
        )
        path = tmp_path / "page.html"
        path.write_text(page(data).replace("</body>", script))
        dom, console = self.load(chromium, path, tmp_path / "profile")
        assert console == []
        expected = f"cosine {data.views[0].similarity[1, 2]:.3f}"
        assert f"clips at 1.60 s and 2.67 s: {expected}" in dom

    def test_the_check_sees_errors(self, chromium: str, data: PlotData, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        broken = '<script>undefinedName();</script><img src="https://example.org/x.png"></body>'
        path.write_text(page(data).replace("</body>", broken))
        _, console = self.load(chromium, path, tmp_path / "profile")
        assert any("undefinedName" in line for line in console)
        assert any("Content Security Policy" in line for line in console)

    def test_is_self_contained(self, data: PlotData) -> None:
        text = page(data)
        addresses = set(re.findall(r"https?://[^\"' )]+", text))
        assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
        assert text.count("</script>") == 2  # the video's name did not end one
        assert "<b>Wrap" not in text


def test_other_durations_of_the_video_are_told(store: Path, tmp_path: Path) -> None:
    table = "video,start,end,label,duration\n{0},16,32,Long jump,{1}\nv_b,1,2,Long jump,{2}\n"
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text(table.format("v_a", 64, 9))
    second.write_text(table.format("v_a", 70, 99))
    arguments = ["plot", str(store), "v_a", "-o", str(tmp_path / "p.html"), "-a", str(first)]
    said = CliRunner().invoke(cli, [*arguments, "-a", str(second)]).output
    assert "duration of 1 video" in said and "'v_a': 64 s" in said
    assert "duration of 1 video" not in CliRunner().invoke(cli, arguments).output
