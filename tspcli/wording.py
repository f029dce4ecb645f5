"""Words that messages share."""

from __future__ import annotations


def counted(count: int, what: str, many: str | None = None) -> str:
    """A number and what it counts, in the plural (``many``, or with an s) unless it is one.

    >>> counted(1, "video"), counted(0, "video"), counted(2, "common video")
    ('1 video', '0 videos', '2 common videos')
    >>> counted(2, "class", "classes")
    '2 classes'
    """
    return f"{count} {what}" if count == 1 else f"{count} {many or what + 's'}"


def clock(seconds: float) -> str:
    """A duration as people read it.

    >>> clock(7503), clock(303.2)
    ('2:05:03', '5:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def storable(text: str) -> str:
    r"""Text that every file can hold: bytes of a name that are no UTF-8 are written as escapes.

    >>> storable("v_\udcff.mp4")
    'v_\\udcff.mp4'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException, most: int = 300) -> str:
    r"""The first line of what an error says, so many characters at most; its kind if it is mute.

    >>> first_line(ValueError("one\ntwo")), first_line(ValueError())
    ('one', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
