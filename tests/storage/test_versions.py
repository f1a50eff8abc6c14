"""Files of unknown versions are refused, with both versions named."""

import pytest

from labtree.errors import FormatError
from labtree.storage.versions import check_version


@pytest.mark.parametrize(("found", "known"), [(2, 2), ("1.0", "1.0"), (1, [1, 2]), (2, (1, 2))])
def test_a_known_version_passes(found, known):
    check_version(found, known, "a.h5")


@pytest.mark.parametrize(
    ("found", "known", "message"),
    [
        (3, 2, r"a\.h5: .* version 3; this labtree reads version 2\. Update labtree: pip"),
        (3, [1, 2], r"version 3; this labtree reads version 1 and 2\. Update labtree"),
        (1, 2, "version 1; this labtree reads version 2, and no older"),
        ("2", 2, "version 2; this labtree reads version 2, and no older"),
        (None, "1.0", "version None; this labtree reads version 1.0, and no older"),
        (True, 1, "version True; this labtree reads version 1"),
    ],
)
def test_an_unknown_version_is_refused(found, known, message):
    with pytest.raises(FormatError, match=message):
        check_version(found, known, "a.h5")
