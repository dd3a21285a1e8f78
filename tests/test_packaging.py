"""constraints.txt fixes everything that `make setup` installs, in versions that any machine can get."""

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
# Builds of torch for a GPU bring these; the build decides their versions.
TORCH_OWN = re.compile(r"^(nvidia-|cuda-|triton$|torch$)")


def read_constraints() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def installed_closure(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of the distributions that ``name[extras]`` needs on this machine."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    found: set[str] = set()
    for line in importlib.metadata.distribution(name).requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        needed = canonicalize_name(requirement.name)
        if needed != "mamba-search" and not (name == "torch" and TORCH_OWN.match(needed)):
            found.add(needed)
            found |= installed_closure(needed, frozenset(requirement.extras), seen)
    return found


def test_every_installed_package_is_constrained_to_its_version() -> None:
    constraints = read_constraints()
    closure = installed_closure("mamba-search", frozenset({"dev"}), set())
    assert {"grpcio", "torch", "ray", "pytest", "aiohttp"} <= closure
    for name in sorted(closure):
        assert name in constraints, f"{name} is installed but not in constraints.txt"
        assert importlib.metadata.version(name).split("+")[0] == constraints[name], name


def test_versions_are_plain() -> None:
    for name, version in read_constraints().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version} names a local build"
    assert "://" not in CONSTRAINTS.read_text()
