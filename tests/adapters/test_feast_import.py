"""Feast is imported as it is written: typeguard rewrites none of it, and everything else still."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import barcast.adapters.feast
import typeguard
from feast import Entity, FeatureStore

assert Entity.__init__.__code__.co_filename.endswith("entity.py")
assert "check_argument_types" not in Entity.__init__.__code__.co_names
assert "check_argument_types_internal" not in Entity.__init__.__code__.co_names

@typeguard.typechecked
def double(value: int) -> int:
    return 2 * value

try:
    double("a")
except typeguard.TypeCheckError:
    print("guarded")
"""


def test_feast_is_not_rewritten_and_other_users_of_typeguard_are(tmp_path) -> None:
    program = tmp_path / "program.py"  # typeguard reads the source of what it rewrites
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "guarded"
