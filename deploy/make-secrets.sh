#!/bin/bash
# Makes what compose.yaml asks for as secrets: a certificate authority of your own and a certificate of the doors, a file
# of API keys with one for search and one for ingestion, tokens between the parts, a password for Grafana.
#
#     deploy/make-secrets.sh DIRECTORY        # and prints both API keys, which stand nowhere else
#
# What is there already is kept. Needs openssl and mamba-search (or set MAMBA_SEARCH to how to run it).
set -euo pipefail
directory="${1:?name a directory for the secrets}"
mamba_search="${MAMBA_SEARCH:-mamba-search}"
names="DNS:localhost,DNS:search,DNS:ingest,DNS:search.mamba-search.svc,DNS:ingest.mamba-search.svc,IP:127.0.0.1"

# Others on this machine cannot enter; in the containers each file is mounted by itself, for a user who is not its owner.
mkdir -p "$directory"
chmod 0700 "$directory"
cd "$directory"
umask 0022

if [[ ! -f ca.crt ]]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=mamba-search CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout ca.key -out ca.crt 2> /dev/null
    chmod 0600 ca.key
fi
if [[ ! -f tls.crt ]]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=mamba-search" \
        -CA ca.crt -CAkey ca.key -addext "subjectAltName=$names" -addext basicConstraints=critical,CA:FALSE \
        -addext extendedKeyUsage=serverAuth -keyout tls.key -out tls.crt 2> /dev/null
    chmod 0644 tls.key
fi
for name in encoder-token qdrant-api-key grafana-password; do
    [[ -f "$name" ]] || openssl rand -hex 32 | tr -d '\n' > "$name"
done
if [[ ! -f keys.json ]]; then
    for role in search ingest; do
        echo "API key of the role $role:"
        $mamba_search keys create "$role" --role "$role" --tenant default --file keys.json
    done
    chmod 0644 keys.json
fi
