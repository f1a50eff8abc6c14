"""Names of any kind as names that a tree and a netCDF file can hold.

A name goes in as it is where it can. The rest is percent-encoded (RFC 3986), so
that the real name can always be read back: ``a/b`` becomes ``a%2Fb``.
"""

import functools
import hashlib
from urllib.parse import unquote

from labtree.errors import InvalidNameError, UnsupportedTypeError, one_line

#: The longest name in bytes of UTF-8 that netCDF reads (its NC_MAX_NAME is 256).
LONGEST = 255

#: What netCDF's libraries and labtree's own dimensions begin with.
_RESERVED = (
    "_nc4_non_coord_",
    "labtree_bytes_",
    "labtree_chars_",
    "labtree_complex_",
    "labtree_points_",
)
_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def check_name(name: object, what: str) -> str:
    """Return `name` if it can name a `what`, such as a namespace or a key.

    Raises
    ------
    TypeError
        If it is not a str.
    ValueError
        If it is empty, or holds NUL or a lone surrogate, which no file keeps.
    """
    if not isinstance(name, str):
        shown = f"{type(name).__name__} ({one_line(repr(name), 60)})"
        raise UnsupportedTypeError(f"a {what} is a str, not {shown}")
    if not name:
        raise InvalidNameError(f"a {what} needs at least one character")
    if "\0" in name:
        raise InvalidNameError(f"{what} {name!r} holds a NUL character, which no file keeps")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidNameError(
            f"{what} {name!r} holds a lone surrogate, which is no text"
        ) from None
    return str(name)


def encode_name(name: str) -> str:
    """Return the name of the group or variable that stands for `name` in a file.

    The rule is netCDF's: no control character and no ``/``, Unicode text; a letter, digit,
    underscore or non-ASCII character first; no space last; at most 255 bytes. Where the
    first character is encoded, an underscore stands before it. A longer name is cut and
    ends in ``%~`` and a hash; its text must be kept beside it.

    Examples
    --------
    >>> encode_name("a/b"), encode_name("."), encode_name("rates"), encode_name("50%")
    ('a%2Fb', '_%2E', 'rates', '50%25')
    """
    last = len(name) - 1
    is_reserved = name.startswith(_RESERVED)
    if name.startswith("_%"):  # what an encoded first character looks like
        return _cut(f"_{_percent('_')}{encode_name('x' + name[1:])[1:]}", name)
    encoded = "".join(
        _percent(character)
        if character in "/%"
        or character < " "
        or character == "\x7f"
        or "\ud800" <= character <= "\udfff"
        or (i == 0 and (is_reserved or (character < "\x80" and character not in _START)))
        or (i == last and character.isspace())
        else character
        for i, character in enumerate(name)
    )
    return _cut(f"_{encoded}" if encoded.startswith("%") else encoded, name)


def _cut(encoded: str, name: str) -> str:
    data = encoded.encode()
    if len(data) <= LONGEST:
        return encoded
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return data[:200].decode(errors="ignore") + "%~" + digest


@functools.lru_cache(maxsize=4096)
def is_legal(name: str) -> bool:
    """Return whether a file holds a name as it is, percent signs included."""
    if name.startswith(("%", *_RESERVED)):
        return False
    plain = name.replace("%", "_")
    return (len(plain) < 60 and plain.isidentifier()) or encode_name(plain) == plain


def file_name(name: str) -> str:
    """Return a name as it stands in a file: encoded where netCDF does not allow it."""
    return name if is_legal(name) else encode_name(name)


def decode_name(name: str) -> str:
    """Return the name that :func:`encode_name` was given, where it was not cut.

    Examples
    --------
    >>> decode_name("a%2Fb")
    'a/b'
    """
    if "%" not in name:
        return name
    try:
        encoded = name[1:] if name.startswith("_%") else name
        decoded = unquote(encoded, errors="surrogatepass")
    except UnicodeDecodeError:
        return name
    return decoded if encode_name(decoded) == name else name


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))
