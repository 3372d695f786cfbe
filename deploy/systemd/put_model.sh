#!/bin/sh
# put_model.sh RELEASE MODEL: check the model folder MODEL with the version in RELEASE, copy it, and make the
# copy the installed model. The one before stays, as /opt/qa-onnx/model.before says. Nothing is reloaded.
set -eu
release=$1 home=/opt/qa-onnx
model=$(CDPATH='' cd -- "$2" && pwd)

copy=$home/models/$(date -u +%Y%m%dT%H%M%SZ)-$$
cp -rL "$model" "$copy"
chmod -R a+rX,go-w "$copy"
# The copy, not the original: it is what will be served.
if ! (cd "$release" && QA_THREADS=1 venv/bin/python -m service check "$copy"); then
    rm -rf "$copy"
    exit 2
fi
before=$(readlink "$home/model" || true)
[ -z "$before" ] || { ln -sfn "$before" "$home/model.before.new"; mv -T "$home/model.before.new" "$home/model.before"; }
ln -sfn "$copy" "$home/model.new"
mv -T "$home/model.new" "$home/model"
for old in "$home"/models/*; do
    case $old in "$copy" | "$before") ;; *) rm -rf "$old" ;; esac
done
