"""The README's tables say what the recorded results say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import readme  # noqa: E402


def test_the_readme_says_what_the_results_say():
    assert readme.main(["--check"]) == 0


def test_a_number_that_was_changed_by_hand_is_noticed(tmp_path, monkeypatch, capsys):
    copy = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text()
    copy.write_text(text.replace("| +4.1 ±", "| +14.1 ±"))
    monkeypatch.setattr(readme, "README", copy)
    assert readme.main(["--check"]) == 1 and "run `python tools/readme.py`" in capsys.readouterr().err
    assert readme.main([]) == 0 and copy.read_text() == text and readme.main(["--check"]) == 0


def test_a_missing_table_is_an_error():
    with pytest.raises(ValueError, match=r"expected \['claims'"):
        readme.renewed("no tables here")
