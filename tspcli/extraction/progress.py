"""What a run tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tspcli.extraction.report import ExtractReport, VideoResult, bottleneck


@dataclass
class Progress:
    """A run's figures so far.

    Attributes:
        n_videos: Videos of this run, those kept from an earlier run left out.
        n_ended: Videos done, skipped or failed.
        n_failed: Videos failed.
        n_clips: Clips encoded.
        video_s: Seconds of video encoded.
        total_bytes: Size of all files of this run.
        ended_bytes: Size of the files of ended videos.
        begun_bytes: What is encoded of the files under way, by their announced durations.
        elapsed_s: Seconds since the first video was opened.
        decode_wait_s: Seconds in which the encoder had to wait for frames, from its first batch on.
        encode_s: Seconds in which the encoder worked.
    """

    n_videos: int = 0
    n_ended: int = 0
    n_failed: int = 0
    n_clips: int = 0
    video_s: float = 0.0
    total_bytes: int = 0
    ended_bytes: int = 0
    begun_bytes: float = 0.0
    elapsed_s: float = 0.0
    decode_wait_s: float = 0.0
    encode_s: float = 0.0

    def count_end(self, result: VideoResult, source_bytes: int) -> None:
        """Count a video that has ended, whose file has ``source_bytes`` bytes."""
        self.n_ended += 1
        self.n_failed += result.status == "failed"
        self.ended_bytes += source_bytes

    def copy_to(self, report: ExtractReport) -> None:
        """Keep the run's figures in its report."""
        report.n_clips = self.n_clips
        report.video_s = self.video_s
        report.elapsed_s = self.elapsed_s
        report.decode_wait_s = self.decode_wait_s
        report.encode_s = self.encode_s

    def of_the_lost(self, ended_s: float) -> Progress:
        """What is left of these figures of an encoder that is gone: others do what was under way.

        Args:
            ended_s: Seconds of the videos that it has told to be done.
        """
        return replace(self, video_s=ended_s, begun_bytes=0.0)

    @property
    def bottleneck(self) -> str:
        """``decoding`` or ``encoding``, whichever the run waits for."""
        return bottleneck(self.decode_wait_s, self.encode_s)

    @property
    def left_s(self) -> float | None:
        """Seconds left, by the size of the files; None before anything is done."""
        done = min(self.ended_bytes + self.begun_bytes, self.total_bytes)
        if not done or not self.elapsed_s:
            return None
        return self.elapsed_s * (self.total_bytes - done) / done


class Observer:
    """Watches a run; override what is of interest. All calls come from the run's main thread."""

    def started(self, progress: Progress, n_kept: int) -> None:
        """The videos are listed and the encoder is loaded."""

    def progressed(self, progress: Progress) -> None:
        """A batch was encoded or a video ended."""

    def video_ended(self, result: VideoResult) -> None:
        """A video is done, skipped or failed."""

    def wants_stop(self) -> bool:
        """Whether to end early: videos under way are finished within some seconds, none is begun.

        Asked several times a second, also while nothing else happens.
        """
        return False

    def message(self, text: str) -> None:
        """Something worth a line, such as a batch halved for lack of memory."""
