"""ELAN's documents (.eaf), one per video, or a folder of them.

Every aligned annotation of every tier is a segment; its label is its value, or its tier's name
where that is empty. Annotations of dependent tiers, which have no times of their own, are counted
as skipped. The video is the one that the document names, else the document's own name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from tspcli.annotations.segments import AnnotatedVideo, Annotations, Segment
from tspcli.annotations.text_files import Place, Source, read_text
from tspcli.annotations.write import write_each
from tspcli.core.video_names import Spellings, without_suffix

SUFFIX = ".eaf"
_ROOT = "ANNOTATION_DOCUMENT"
_MS = 1000


def detects(source: Source) -> bool:
    """Whether it is a document of ELAN, or a folder with some."""
    if source.is_folder:
        return bool(source.files(SUFFIX))
    return source.is_table and f"<{_ROOT}" in source.text[:2000]


def read(source: Source) -> Annotations:
    """Read it.

    Raises:
        AnnotationError: If a document is none, or two are of one video.
    """
    found = Annotations(path=source.path)
    spellings = Spellings()
    for path in source.files(SUFFIX):
        name, segments, n_dependent = _read_document(path)
        if spellings.first(name) in found:
            raise Place(path, video=name).error("another document is of the same video.")
        found[name] = AnnotatedVideo(tuple(segments))
        if n_dependent:
            found.skipped["refers to another annotation"] += n_dependent
    return found


def _read_document(path: Path) -> tuple[str, list[Segment], int]:
    text = read_text(path, "annotation file")
    place = Place(path)
    # ELAN declares no entities, and those of others may be made to fill the memory.
    if "<!DOCTYPE" in text:
        raise place.error("it declares a document type, which no document of ELAN does.")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise place.error(f"it is not XML: {error}.") from error
    if root.tag != _ROOT:
        raise place.error(f"its root is {root.tag!r}, not {_ROOT!r}.", value=root.tag)
    times = _times(root, place)
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    addresses = {} if media is None else media.attrib
    address = addresses.get("RELATIVE_MEDIA_URL") or addresses.get("MEDIA_URL") or ""
    name = without_suffix(unquote(address)) or path.stem
    segments = []
    for tier in root.iter("TIER"):
        for one in tier.iter("ALIGNABLE_ANNOTATION"):
            ends = [one.get(f"TIME_SLOT_REF{n}", "") for n in (1, 2)]
            if not all(end in times for end in ends):
                where = Place(path, video=name, field=one.get("ANNOTATION_ID"))
                raise where.error(f"its time slots {ends} are not in the document.", value=ends)
            value = (one.findtext("ANNOTATION_VALUE") or "").strip()
            label = " ".join(value.split()) or tier.get("TIER_ID", "")
            segments.append(Segment(times[ends[0]], times[ends[1]], label))
    segments.sort(key=lambda segment: segment[:2])
    return name, segments, sum(1 for _ in root.iter("REF_ANNOTATION"))


def _times(root: ElementTree.Element, place: Place) -> dict[str, float]:
    """Seconds of each time slot; one without a time lies evenly between those around it."""
    slots = [(s.get("TIME_SLOT_ID", ""), s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")]
    times: dict[str, float] = {}
    open_slots: list[str] = []
    last_s = 0.0
    for name, value in slots:
        if value is None:
            open_slots.append(name)
            continue
        if not value.isdigit():
            raise place.at(name).error(f"{value!r} is not a number of milliseconds.", value=value)
        time_s = int(value) / _MS
        share = (time_s - last_s) / (len(open_slots) + 1)
        times |= {slot: last_s + share * (n + 1) for n, slot in enumerate(open_slots)}
        times[name] = last_s = time_s
        open_slots = []
    return times | dict.fromkeys(open_slots, last_s)


def write(out: Path, annotations: Annotations) -> list[Path]:
    """Write one document per video.

    Args:
        out: The document, or the folder for several videos.
        annotations: The segments.

    Returns:
        The files.
    """
    return write_each(out, annotations, SUFFIX, _document)


def _document(name: str, segments: tuple[Segment, ...]) -> str:
    def lines() -> Iterator[str]:
        yield '<?xml version="1.0" encoding="UTF-8"?>'
        yield (
            f'<{_ROOT} AUTHOR="" DATE="1970-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">'
        )
        media = quoteattr(f"./{name}.mp4")
        yield '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">'
        yield (
            f'<MEDIA_DESCRIPTOR MEDIA_URL={media} MIME_TYPE="video/mp4" '
            f"RELATIVE_MEDIA_URL={media}/>"
        )
        yield "</HEADER>"
        yield "<TIME_ORDER>"
        for n, segment in enumerate(segments):
            for end, time_s in enumerate(segment[:2]):
                time = round(time_s * _MS)
                yield f'<TIME_SLOT TIME_SLOT_ID="ts{2 * n + end + 1}" TIME_VALUE="{time}"/>'
        yield "</TIME_ORDER>"
        # Annotations of one tier may not overlap.
        for number, tier in enumerate(_tiers(segments)):
            yield f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="actions{number or ""}">'
            for n in tier:
                yield (
                    f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{n + 1}" '
                    f'TIME_SLOT_REF1="ts{2 * n + 1}" TIME_SLOT_REF2="ts{2 * n + 2}">'
                    f"<ANNOTATION_VALUE>{escape(segments[n].label)}</ANNOTATION_VALUE>"
                    "</ALIGNABLE_ANNOTATION></ANNOTATION>"
                )
            yield "</TIER>"
        yield (
            '<LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" '
            'TIME_ALIGNABLE="true"/>'
        )
        yield f"</{_ROOT}>"

    return "\n".join(lines()) + "\n"


def _tiers(segments: tuple[Segment, ...]) -> list[list[int]]:
    """The segments' numbers in as few tiers as keep them from overlapping, at least one tier."""
    tiers: list[list[int]] = [[]]
    for n in sorted(range(len(segments)), key=lambda n: segments[n][:2]):
        free = (t for t in tiers if not t or segments[t[-1]].end_s <= segments[n].start_s)
        tier = next(free, None)
        if tier is None:
            tiers.append(tier := [])
        tier.append(n)
    return tiers
