#!/bin/sh
# Makes the protobuf modules from the .proto files beside this script. The result is committed; a test checks for drift.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
out=${1:-$root}
cd "$root"
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I . --python_out="$out" --mypy_out=quiet:"$out" \
    tunnel/proto/*.proto
