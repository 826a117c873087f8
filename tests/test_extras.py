"""What is said of packages that a plain installation lacks."""

from __future__ import annotations

import pytest

from streamsal.errors import UsageError
from streamsal.extras import need


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    need("train", "scoring clips", "json", "torch")
    with pytest.raises(UsageError, match=r"^scoring clips needs no-such-package: pip install 'streamsal\[train\]'$"):
        need("train", "scoring clips", "json", "no_such_package")
