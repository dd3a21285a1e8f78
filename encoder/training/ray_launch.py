"""The same run on several machines, by Ray Train: one process a GPU, or a core, of a Ray cluster.

Every machine must see the files that the configuration names, ``out`` too, at the same paths.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from encoder.training.config import TrainConfig, check_config


def launch(config: TrainConfig, workers: int) -> None:
    """Run a training with so many processes on the cluster that this one belongs to, or on this machine alone.

    Whatever a process raises ends the run and is raised here by Ray. A run that was interrupted goes on when it is
    launched again.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=True)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    on_gpus = config.device.startswith("cuda") or (config.device == "auto" and resources.get("GPU", 0) > 0)
    trainer = TorchTrainer(
        _train_in_worker,
        train_loop_config={"config": config.model_dump(mode="json", exclude_none=True)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpus),
        run_config=RunConfig(storage_path=str((config.out / "ray").resolve())),
    )
    trainer.fit()


def _train_in_worker(given: dict[str, Any]) -> None:
    # Imported here: the launching process needs no torch.
    from encoder.training.loop import train

    train(check_config("the configuration", given["config"]))
