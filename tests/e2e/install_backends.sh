#!/bin/sh
# tests/e2e/install_backends.sh [directory]: Arize Phoenix and MLflow, each into a virtualenv of its own, for
# tests/e2e/test_backends.py (about 1.5 GB together). They are test tools alone: Phoenix is under the Elastic License 2.0.
set -eu
place="${1:-.backends}"
python="${PYTHON:-python3}"
mkdir -p "$place"
install() { # name of the virtualenv, what goes into it
    if [ ! -f "$place/$1/.installed" ]; then
        [ -x "$place/$1/bin/python" ] || "$python" -m venv "$place/$1"
        if "$place/$1/bin/python" -m pip --disable-pip-version-check --quiet install "$2"; then
            touch "$place/$1/.installed"
        else
            echo "could not install $2: its tests are skipped" >&2
        fi
    fi
}
install phoenix 'arize-phoenix>=20.26,<21'
install mlflow 'mlflow>=3.17,<3.18' # 3.18.0 asks for a mlflow-skinny that some indexes do not have
