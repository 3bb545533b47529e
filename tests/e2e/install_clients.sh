#!/bin/sh
# Installs the command line agents that tests/e2e/test_clients_npm.py drives, into ./.clients; and Grafana's own types of
# dashboards, which tests/test_dashboards_types.py holds ours against.
# The versions are pinned; set CLIENTS=... to install a subset.
set -eu
cd "$(dirname "$0")/../.."
clients=${CLIENTS:-"@anthropic-ai/claude-code@2.1.330 @openai/codex@0.169.0 opencode-ai@1.18.33"}
command -v npm >/dev/null || { echo "npm is not installed: the command line clients are skipped" >&2; exit 1; }
mkdir -p .clients
for client in $clients; do
    npm install --no-audit --no-fund --no-update-notifier --loglevel=error --prefix .clients "$client" ||
        echo "could not install $client: its tests are skipped" >&2
done
for types in "@grafana/schema@13.2.3" "typescript@5.9.3"; do
    npm install --no-audit --no-fund --no-update-notifier --loglevel=error --ignore-scripts --prefix .clients "$types" ||
        echo "could not install $types: the types of dashboards are not checked" >&2
done
for name in claude codex opencode; do
    printf '%s: ' "$name"
    .clients/node_modules/.bin/$name --version 2>/dev/null || echo "not installed"
done
