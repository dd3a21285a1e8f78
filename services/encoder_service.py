"""The encoder service: replicas of :class:`ObservedReplica` behind Ray Serve's gRPC proxy, in a Ray of its own.

One model for both roles is one application, "encoder"; two models are two, "query-encoder" and "passage-encoder", and
callers choose with the metadata key ``application``. Run with ``python -m services.encoder_service``; on a Ray cluster,
``deploy/serve.yaml`` deploys the same applications.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoder.errors import CheckpointError, MambaSearchError, Unavailable
from encoder.hub import local_folder
from services.encoding.factory import EncoderFactory, LocalEncoderFactory
from services.encoding.model_folder import check_model
from services.encoding.observed import ObservedReplica
from services.encoding.replica import ReplicaRules
from services.encoding.scheduler import Limits
from services.encoding.watch import watch
from services.machine.local_machine import check_port, free_port, ray_directory, target_of
from services.machine.process_tree import adopt_orphans, descendants, kill_descendants
from services.observing.logs import configure_logging
from services.observing.replica import ReplicaObserving
from services.setting_groups import ObservingSettings
from services.settings import EncoderSettings
from services.status import exit_code

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve._private.grpc_util import gRPCGenericServer

SERVICER_FUNCTIONS = (
    "services.encoding.servicers.add_encoder_service",
    "services.encoding.servicers.add_health_service",
)
# On a GPU a query waits for the batches under way, two at most; on a CPU for none. A GPU has its next batch while it
# reads one, so that larger ones would make queries wait longer and keep it no busier.
BATCH_TOKENS_CPU, BATCH_TOKENS_GPU = 2048, 65_536
# A replica is replaced when it was found unwell three times in a row: 15 to 20 s after it stopped answering. A busy one
# answers within seconds, from its event loop (canary.WAIT_MAX_S).
_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 5.0, 5.0
_SCALING_POLICY = "services.encoding.autoscaling:QueuedTokensPolicy"
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
# Ray starts this many Python processes at once: Serve's controller, its proxy, the first replica.
_RAY_CPUS = 3

_POLL_S = 0.2
_SWEEP_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


def encoder(arguments: Mapping[str, object]) -> Application:
    """Build the application that plays both roles with one model, from :class:`EncoderSettings`' fields."""
    settings = EncoderSettings.load(arguments)
    factory = local_factory(settings, settings.query_model, models=1)
    return build_application("Encoder", factory, settings, settings.encoder_num_gpus or 0)


def query_encoder(arguments: Mapping[str, object]) -> Application:
    """Build the application that encodes queries, from :class:`EncoderSettings`' fields."""
    settings = EncoderSettings.load(arguments)
    factory = local_factory(settings, settings.query_model, models=2)
    return build_application("QueryEncoder", factory, settings, settings.encoder_num_gpus or 0)


def passage_encoder(arguments: Mapping[str, object]) -> Application:
    """Build the application that encodes passages, from :class:`EncoderSettings`' fields."""
    settings = EncoderSettings.load(arguments)
    factory = local_factory(settings, settings.passage_model, models=2)
    return build_application("PassageEncoder", factory, settings, settings.encoder_num_gpus or 0)


def local_factory(settings: EncoderSettings, folder: Path, *, models: int) -> LocalEncoderFactory:
    """Say how a replica loads its model."""
    return LocalEncoderFactory(
        folder=folder.absolute(),
        device=settings.encoder_device,
        threads=settings.encoder_threads,
        replicas=settings.encoder_num_replicas * models,
        beside_queries=True,
        eight_bits=settings.encoder_eight_bits,
    )


def build_application(name: str, factory: EncoderFactory, settings: EncoderSettings, num_gpus: float) -> Application:
    """Bind one deployment: its replicas load what ``factory`` makes, and reserve ``num_gpus`` each."""
    from ray import serve

    deployment = serve.deployment(
        name=name,
        **_replicas(settings),
        ray_actor_options={"num_cpus": 0, "num_gpus": num_gpus},
        max_ongoing_requests=settings.encoder_max_ongoing_requests,
        # Looser than the replicas' own limits, which say when to come again: a burst waits until it is handed out.
        max_queued_requests=settings.encoder_max_ongoing_requests,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=10,
        max_constructor_retry_count=1,
        logging_config=dict(_QUIET),
    )(ObservedReplica)
    limits = Limits(
        batch_tokens=settings.encoder_batch_tokens or (BATCH_TOKENS_GPU if num_gpus else BATCH_TOKENS_CPU),
        requests_max=settings.encoder_max_queued_requests,
        tokens_max=settings.encoder_max_queued_tokens,
        documents_max=settings.encoder_documents_max,
    )
    rules = ReplicaRules(limits, settings.shown_token())
    application: Application = deployment.bind(replica_observing(settings), factory, application_name, rules)
    return application


def replica_observing(settings: EncoderSettings) -> ReplicaObserving:
    """Say how replicas are to be observed; what else there is to know of this process stays here."""
    ours = {name: getattr(settings, name) for name in ObservingSettings.model_fields}
    return ReplicaObserving(ObservingSettings.model_construct(**ours), settings.encoder_metrics_port)


def _replicas(settings: EncoderSettings) -> dict[str, Any]:
    """Give Serve's options for a fixed number of replicas, or for one that follows the waiting tokens."""
    least, most = settings.encoder_num_replicas, settings.encoder_max_replicas or settings.encoder_num_replicas
    if least == most:
        return {"num_replicas": least}
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=_SCALING_POLICY, policy_kwargs={"tokens_per_replica": settings.encoder_tokens_per_replica}
    )
    return {"autoscaling_config": AutoscalingConfig(min_replicas=least, max_replicas=most, policy=policy)}


def factories(settings: EncoderSettings) -> dict[str, tuple[str, EncoderFactory]]:
    """Name the applications to run, each with its deployment and what it loads; refuse a folder that is no model."""
    given = {"query": settings.query_model, "passage": settings.passage_model}
    folders = {role: local_folder(source).absolute() for role, source in given.items()}
    for folder in set(folders.values()):
        check_model(folder)
    if folders["query"] == folders["passage"]:
        return {"encoder": ("Encoder", local_factory(settings, folders["query"], models=1))}
    return {
        "query-encoder": ("QueryEncoder", local_factory(settings, folders["query"], models=2)),
        "passage-encoder": ("PassageEncoder", local_factory(settings, folders["passage"], models=2)),
    }


def serve_until(
    stop: threading.Event,
    settings: EncoderSettings,
    applications: Mapping[str, tuple[str, EncoderFactory]],
    on_ready: Callable[[], None],
) -> None:
    """Run a Ray of our own with the applications behind ``encoder_port``, until ``stop``; nothing is left afterwards.

    :class:`CheckpointError` for a model that cannot be loaded; :class:`Unavailable` where Ray fails.
    """
    check_port("encoder_port", settings.encoder_host, settings.encoder_port)
    # Ray's own helpers outlive a start that is broken off by a minute; ours to end, as nobody else sees them.
    adopt_orphans()
    strangers = descendants(os.getpid())
    directory = settings.ray_dir or ray_directory()
    try:
        _set_ray_environment(settings)
        import ray
        from ray import serve

        try:
            _start_ray(directory)
            if not stop.is_set():
                _start_serve(settings)
                _deploy(settings, applications, stop)
            if not stop.is_set():
                on_ready()
                watch(target_of(settings.encoder_host, settings.encoder_port), applications, stop)
        finally:
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
    finally:
        kill_descendants(but=strangers, within_s=_SWEEP_TIMEOUT_S)
        shutil.rmtree(directory, ignore_errors=True)


def _start_ray(directory: Path) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=_RAY_CPUS,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=True,
        _temp_dir=str(directory),
    )


def _start_serve(settings: EncoderSettings) -> None:
    from ray import serve

    serve.start(
        http_options={"host": "127.0.0.1", "port": free_port()},  # Serve's gRPC port does not open without it
        grpc_options={"port": settings.encoder_port, "grpc_servicer_functions": list(SERVICER_FUNCTIONS)},
        logging_config=dict(_QUIET),
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def _share_of_gpus(settings: EncoderSettings, models: int) -> float:
    """Give what each replica reserves; Ray hides the GPUs from a replica that reserves none."""
    import ray

    if settings.encoder_num_gpus is not None:
        return settings.encoder_num_gpus
    if settings.encoder_device == "cpu":
        return 0
    gpus: float = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    return min(1.0, gpus / (settings.encoder_num_replicas * models))


def _deploy(
    settings: EncoderSettings, applications: Mapping[str, tuple[str, EncoderFactory]], stop: threading.Event
) -> None:
    """Deploy the applications and wait until all run, or until ``stop``."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    num_gpus = _share_of_gpus(settings, len(applications))
    targets = [
        serve.RunTarget(build_application(deployment, factory, settings, num_gpus), name, f"/{name}")
        for name, (deployment, factory) in applications.items()
    ]
    serve.run_many(targets, wait_for_applications_running=False)
    while not stop.wait(_POLL_S):
        found = [serve.status().applications[name] for name in applications]
        for application in found:
            if application.status == ApplicationStatus.DEPLOY_FAILED:
                # The replica's traceback; its last line is our own sentence.
                told = "\n".join(deployment.message for deployment in application.deployments.values())
                refusals = re.findall(r"^encoder\.errors\.CheckpointError: (.+)$", told, re.MULTILINE)
                if refusals:
                    raise CheckpointError(refusals[-1])
                logger.error("Ray Serve could not start an application: %s\n%s", application.message, told)
                raise Unavailable("Ray Serve could not start the encoder; the log says why.")
        if all(application.status == ApplicationStatus.RUNNING for application in found):
            return


def application_name() -> str:
    """Give the name of the application that this replica belongs to."""
    from ray import serve

    return serve.get_replica_context().app_name


def _set_ray_environment(settings: EncoderSettings) -> None:
    """Configure Ray where it reads its options: before its import, in what its processes inherit."""
    ours = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Whoever reaches Ray's ports can run code: a secret of this run, kept from the home directory.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # One event loop for Serve and replica: half the latency, and forward passes have a thread of their own.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # From proxy to replica by gRPC, which that option leaves out. In actor calls, what is over 100 KB (a batch of
        # passages, or its embeddings) goes through the object store: a third fewer passages a second.
        "RAY_SERVE_PROXY_USE_GRPC": "1",
        # Replicas listen for no one but the proxy.
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        "RAY_SERVE_LOG_TO_STDERR": "1",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(_MESSAGE_BYTES_MAX),
    }
    if settings.encoder_host == "127.0.0.1":
        # Makes this machine's address 127.0.0.1, so that Ray's processes listen on loopback only.
        ours["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ours["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = f"{__spec__.name}:listen_on_loopback"
    os.environ.update(ours)  # noqa: TID251 - writes for Ray, reads nothing


def listen_on_loopback() -> list[object]:
    """Bind Serve's gRPC port to 127.0.0.1; Serve calls this in its proxy, before it opens the port.

    Serve has an option for the host of its HTTP port but not of its gRPC port, which opens on all interfaces.
    """
    from ray.serve._private import default_impl

    bind = default_impl.add_grpc_address

    def bind_to_loopback(grpc_server: gRPCGenericServer, server_address: str) -> None:
        bind(grpc_server, f"127.0.0.1:{server_address.rpartition(':')[2]}")

    default_impl.add_grpc_address = bind_to_loopback
    return []


def _end(stop: threading.Event) -> None:
    # Ray's own handler has run before us, and set an alarm that aborts the process in the midst of its cleaning up.
    signal.alarm(0)
    stop.set()


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(settings: EncoderSettings) -> None:
        try:
            address = f"{settings.encoder_host}:{settings.encoder_port}"
            serve_until(stop, settings, factories(settings), lambda: logger.info("ready on %s", address))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    try:
        settings = EncoderSettings.load()
        configure_logging("encoder", settings.log_level, settings.log_format)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: _end(stop))
        # Ray takes over the signals of the thread that starts it if that is the main one, and does not bear an
        # exception in the midst of its start.
        thread = threading.Thread(target=work, args=(settings,), name="ray")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
    except MambaSearchError as error:
        sys.stderr.write(f"{error}\n")
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
