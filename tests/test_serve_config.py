"""deploy/serve.yaml: Ray's schema accepts it, and it deploys what services/encoder_service.py does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# In a process of its own: Ray reads its environment once.
SCRIPT = """
import importlib, yaml
from ray.serve.schema import ServeDeploySchema
from services.encoder_service import SERVICER_FUNCTIONS, encoder, query_encoder, passage_encoder

config = ServeDeploySchema.model_validate(yaml.safe_load(open("deploy/serve.yaml")))
assert config.grpc_options.port == 9000
assert tuple(config.grpc_options.grpc_servicer_functions) == SERVICER_FUNCTIONS
assert not config.logging_config.enable_access_log
(application,) = config.applications
module, _, name = application.import_path.partition(":")
assert getattr(importlib.import_module(module), name) is encoder
for build, expected in ((encoder, "Encoder"), (query_encoder, "QueryEncoder"), (passage_encoder, "PassageEncoder")):
    deployment = build(application.args)._bound_deployment
    assert deployment.name == expected
    assert deployment.ray_actor_options["num_gpus"] == 0.5
    assert (deployment.max_queued_requests, deployment.max_ongoing_requests) == (320, 320)
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 8)
    policy = scaling.policy.get_policy()(**scaling.policy.policy_kwargs)
    assert policy.tokens_per_replica == 65536
fixed = encoder({"encoder_num_replicas": 3, "encoder_num_gpus": 0})._bound_deployment
assert fixed.num_replicas == 3 and fixed._deployment_config.autoscaling_config is None
print("accepted")
"""


def test_it_is_accepted_and_builds_the_applications() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout == "accepted\n", run.stderr
