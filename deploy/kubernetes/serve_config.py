"""Writes what the overlays serve, from deploy/serve.yaml: ``python deploy/kubernetes/serve_config.py``.

A RayService holds Serve's configuration as text, which no overlay can change a part of.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
# Of serve.yaml's arguments, what a CPU's replica has in place of a GPU's; the others have defaults by device.
CPU_ARGUMENTS = {"encoder_num_gpus": 0, "encoder_device": "cpu", "encoder_threads": 4}
GPU_ALONE = ("encoder_batch_tokens", "encoder_tokens_per_replica")
_HEAD = """\
# Made by serve_config.py from ../../serve.yaml, which says what it means.
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: encoder
spec:
  serveConfigV2: |
"""


def for_cpus(served: Mapping[str, Any]) -> dict[str, Any]:
    """Give the same applications for workers of four cores: a replica takes all of one, so that Ray makes more."""
    changed = copy.deepcopy(dict(served))
    for application in changed["applications"]:
        kept = {name: value for name, value in application["args"].items() if name not in GPU_ALONE}
        application["args"] = {**kept, **CPU_ARGUMENTS}
        application["deployments"] = [{"name": "Encoder", "ray_actor_options": {"num_cpus": 4, "num_gpus": 0}}]
    return changed


def render(config: Mapping[str, Any]) -> str:
    """Make the patch of an overlay."""
    lines = yaml.safe_dump(dict(config), sort_keys=False, width=110).splitlines()
    return _HEAD + "".join(f"    {line}\n" for line in lines)


def patches() -> dict[Path, str]:
    """Give the files to write, and their contents."""
    served = yaml.safe_load((HERE.parent / "serve.yaml").read_text(encoding="utf-8"))
    return {HERE / "gpu" / "encoder.yaml": render(served), HERE / "cpu" / "encoder.yaml": render(for_cpus(served))}


if __name__ == "__main__":
    for path, text in patches().items():
        path.write_text(text, encoding="utf-8")
