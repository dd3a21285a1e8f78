"""`make demo` on the model that ships: its three questions are answered."""

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parent.parent.parent / "demo" / "demo.py"


def test_the_demo_answers_its_questions() -> None:
    process = subprocess.Popen([sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shown, _ = process.communicate(timeout=280)
    assert process.returncode == 0, shown
    assert "3 documents ingested" in shown
    assert shown.count("✓ the answer is in the first passage") == 3
    assert "3 of 3 questions answered; the service has stopped" in shown
