#!/bin/sh
# tests/bench/install_peers.sh [directory] [litellm|portkey]: LiteLLM into a virtualenv of its own, Portkey's gateway
# from npm; or one of them.
set -eu
place="${1:-.peers}"
which="${2:-all}"
python="${PYTHON:-python3}"
mkdir -p "$place"
if [ "$which" != portkey ] && [ ! -x "$place/litellm/bin/litellm" ]; then
    "$python" -m venv "$place/litellm"
    # 1.82.7 and 1.82.8 were published by somebody else and steal credentials.
    "$place/litellm/bin/python" -m pip --disable-pip-version-check --quiet install \
        'litellm[proxy]!=1.82.7,!=1.82.8' granian
fi
if [ "$which" != litellm ] && [ ! -f "$place/node_modules/@portkey-ai/gateway/build/start-server.js" ]; then
    if command -v npm >/dev/null; then
        npm install --prefix "$place" --no-audit --no-fund --loglevel=error @portkey-ai/gateway
    else
        echo "npm is not there: Portkey is left out" >&2
    fi
fi
