r"""Making untrusted text safe to look at.

A language model can emit anything: terminal escapes, characters that reverse the reading order,
characters without width, half of a surrogate pair. `visible` keeps what can be read and turns
the rest into backslash escapes, so that a terminal or a page shows what is really there.
"""

import hashlib
import re

_INVISIBLE = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u00ad\u034f\u061c\u180e"  # soft hyphen, grapheme joiner, Arabic mark, Mongolian separator
    "\u200b-\u200f\u2028-\u202e"  # zero width, direction marks, separators, embeddings
    "\u2060-\u206f"  # word joiner, invisible operators, isolates, deprecated format characters
    "\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff"  # byte order mark, annotations, noncharacters
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # shorthand and musical format controls
    "\U000e0000-\U000e007f"  # tags: an invisible copy of ASCII
    "\ud800-\udfff"  # lone surrogates; a str never holds a paired one
)
_ASTRAL_NONCHARACTERS = "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17)
)
_HIDDEN = re.compile(f"[{_INVISIBLE}{_ASTRAL_NONCHARACTERS}]")
_HIDDEN_BUT_LAYOUT = re.compile(f"(?![\n\t])[{_INVISIBLE}{_ASTRAL_NONCHARACTERS}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible(text: str, newlines: bool = True) -> str:
    r"""Show characters that hide, reorder or control text as backslash escapes.

    Printable Unicode stays as it is, backslashes included, so the result is for reading, not for
    decoding. Applying the function twice gives the same text as applying it once, and the result
    can always be encoded as UTF-8.

    Args:
        text: Any string, also one with lone surrogates.
        newlines: Keep line feeds and tabs; otherwise they become ``\n`` and ``\t``, and the
            result is one line.

    Returns:
        The text with each such character replaced: ``\x1b``, ``\u202e``, ``\U000e0041``.
    """
    return (_HIDDEN_BUT_LAYOUT if newlines else _HIDDEN).sub(_escape, text)


def text_hash(text: str) -> bytes:
    """128 bits of BLAKE2b; any string, also one with half of a surrogate pair."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def storable(text: str) -> str:
    """Text as a database can hold it: half of a surrogate pair becomes a backslash escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
