"""Fails unless source files stay small: the median under 200 lines, none over 400 that is not generated.

The last line is the figure.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent.parent
MEDIAN_MAX = 200
LINES_MAX = 400
ROOMS = ("encoder", "ingest", "services", "demo", "proto", "tests", "deploy")


def source_files() -> list[Path]:
    """Python and protocol files that git knows, without the generated ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *ROOMS]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = [ROOT / name for name in listed if name.endswith((".py", ".proto")) and "_pb2" not in name]
    return [path for path in paths if path.is_file() and path.stat().st_size]


def main() -> int:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}
    longest = sorted(lines, key=lambda path: lines[path], reverse=True)
    for path in longest[:5]:
        print(f"{lines[path]:4d} {path.relative_to(ROOT)}")
    middle = median(lines.values())
    good = middle < MEDIAN_MAX and lines[longest[0]] <= LINES_MAX
    print(
        f"{'PASS' if good else 'FAIL'}: median {middle:g} lines (under {MEDIAN_MAX}), longest {lines[longest[0]]} "
        f"(at most {LINES_MAX}), {len(lines)} files"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
