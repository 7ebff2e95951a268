"""What a file is that is no slide, or a slide of a kind that nobody here reads: said at once and clearly."""

from __future__ import annotations

from pathlib import Path

__all__ = ["OF_NO_VENDOR", "VENDOR_SUFFIXES", "explain_unsupported"]

VENDOR_SUFFIXES = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi", ".dcm", ".dicom"}
)
"""Files of these names are whole slides; what a plain reader finds in them is a preview or a label."""

OF_NO_VENDOR = "a TIFF of no vendor, left to our own reader"
"""What OpenSlide's reader says of a tiled TIFF that is whole but of no make, whatever its name."""

CONVERT = "convert it to OME-TIFF or a pyramidal TIFF, for example with QuPath"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/", "a git-LFS pointer, not the slide; run 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GIF8", "a GIF picture"),
    (b"SIS\0", "an Olympus ETS file, part of a VSI slide, which is not supported; " + CONVERT),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x93NUMPY", "a NumPy array; pass the array itself to open_slide"),
    (b"SQLite format 3", "an SQLite database"),
)  # fmt: skip

_SUFFIXES = {
    ".vsi": f"an Olympus VSI slide, which is not supported (its .vsi holds only an overview); {CONVERT}",
    ".isyntax": f"a Philips iSyntax slide, which is not supported; {CONVERT}",
    ".i2syntax": f"a Philips iSyntax slide, which is not supported; {CONVERT}",
    ".lif": f"a Leica LIF file, which is not supported; {CONVERT}",
    ".kfb": f"a KFBio slide, which is not supported; {CONVERT}",
    ".sdpc": f"an SDPC slide, which is not supported; {CONVERT}",
}


def explain_unsupported(path: Path, head: bytes) -> str | None:
    """One line that says what the file is, if it is known to be no slide that can be read; else None."""
    if not head:
        return "the file is empty (0 bytes)"
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES and not head.startswith(_MAGIC[0][0]):
        return f"this is {_SUFFIXES[suffix]}"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            # SVSlide is an SQLite database; whoever names it so means it
            if kind == "an SQLite database" and suffix == ".svslide":
                return None
            return f"this is {kind}"
    if not head.strip(b"\0"):
        return "the file begins with nothing but zeros: an interrupted copy?"
    return _explain_text(suffix, head)


def _explain_text(suffix: str, head: bytes) -> str | None:
    if suffix in (".vms", ".vmu", ".ini"):  # slides whose main file is text
        return None
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8", "ignore")
    if any(ord(character) < 32 and character not in "\t\r\n\f" for character in text):
        return None
    start = text.lstrip()
    if not start:
        return "the file holds nothing but blanks"
    if start.startswith("<"):
        return "this is an XML or HTML text, not a slide"
    if start[0] in "{[":
        return "this is a JSON text, not a slide"
    if start.count(",") + start.count(";") + start.count("\t") >= 2 and "\n" in start:
        return "this is a table (CSV), not a slide"
    return "this is a text, not a slide"
