#!/bin/bash
# What a container of mamba-search runs, by name. Secrets that are files become settings first: each file in SECRETS_DIR
# whose name is that of a setting (MAMBASEARCH_…), as compose and Kubernetes mount them.
set -euo pipefail

for file in "${SECRETS_DIR:-/run/secrets}"/MAMBASEARCH_*; do
    if [[ -f "$file" ]]; then
        export "${file##*/}=$(<"$file")"
    fi
done

name="${1:-up}"
[[ $# -gt 0 ]] && shift
case "$name" in
    search) exec python -m services.search_service "$@" ;;
    ingest) exec python -m services.ingest_service "$@" ;;
    index) exec python -m services.index_owner "$@" ;;
    encoder) exec python -m services.encoder_service "$@" ;;
    health) exec python -m services.health_check "$@" ;;
    ray) exec ray "$@" ;;
    bash | /bin/bash) exec /bin/bash "$@" ;;
    *) exec mamba-search "$name" "$@" ;;
esac
