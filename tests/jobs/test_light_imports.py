"""A run file is checked before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

from jobs.names import ROOT
from tests.jobs.test_config import DEMO


def test_nothing_heavy_is_imported_to_check_a_run_file(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("name: wrong\nmodles: []\n")
    check = (
        "import sys\n"
        "from pathlib import Path\n"
        "from jobs.__main__ import main\n"
        "from jobs.config import read_run_file\n"
        f"read_run_file(Path({str(DEMO)!r}))\n"
        f"sys.argv = ['isthmus', 'sweep', {str(tmp_path / 'wrong.yaml')!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as ended:\n"
        "    heavy = {'torch', 'transformers', 'ray', 'mlflow', 'numpy', 'scipy', 'pyarrow'}\n"
        "    print(ended.code, sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "2 []\n", ran.stderr
