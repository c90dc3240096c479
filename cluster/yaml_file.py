"""A YAML file that a person wrote, or one line on why it cannot be read."""

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path, error: type[ValueError]) -> Any:
    """What the file holds. Raises `error` where it is missing, unreadable, or no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as fault:
        raise error(f"{path}: cannot be read: {fault}") from None
    except yaml.YAMLError as fault:
        raise error(f"{path}: not YAML: {' '.join(str(fault).split())}") from None
