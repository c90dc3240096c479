"""A file system that is small, and gone with the process that sees it."""

import subprocess
from pathlib import Path

import pytest


def in_file_system_of(size: int, at: Path, steps: str, *arguments: str) -> list[str]:
    """A command that runs the steps of a shell where `at` is a file system of `size` bytes.

    Nobody else sees it. The test that asks is skipped where nothing can be mounted.
    """
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={size} isthmus {at}"
    if subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here, not even in a namespace of its own")
    return [*unshare, f"{mount} || exit 9\n{steps}", "sh", *arguments]
