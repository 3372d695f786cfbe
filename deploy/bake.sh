#!/bin/sh
# bake.sh CONTEXT MODEL OUTPUT: put the exported form of MODEL into OUTPUT during an image build.
# REVISION and EXPORT_FLAGS come from the environment; the hub token from the build secret.
set -eu
context=$1 model=$2 output=$3

case $model in default | exported) model=models/$model ;; esac
if [ -f "$context/$model/manifest.json" ]; then
    cp -r "$context/$model" "$output"
    exit 0
fi
[ -d "$context/$model" ] && model=$context/$model
if [ -f /run/secrets/hf_token ]; then
    HF_TOKEN=$(cat /run/secrets/hf_token)
    export HF_TOKEN
fi
# Flags are words to be split.
# shellcheck disable=SC2086
exec /opt/export/bin/python -m export --model "$model" --output "$output" \
    ${REVISION:+--revision "$REVISION"} ${EXPORT_FLAGS:-}
