#!/bin/sh
# trim.sh VENV: remove from a run-time environment what inference never loads (about 100 MB).
set -eu
packages=$(echo "$1"/lib/python3*/site-packages)

# Nothing more will be installed into this environment.
rm -rf "$packages"/pip "$packages"/pip-*.dist-info
rm -rf "$packages"/setuptools "$packages"/setuptools-*.dist-info \
    "$packages"/pkg_resources "$packages"/_distutils_hack "$packages"/distutils-precedence.pth
# ONNX Runtime's shared library for C programs: the Python module is linked statically.
rm -f "$packages"/onnxruntime/capi/libonnxruntime.so*
# Model conversion tools: used at export time only.
rm -rf "$packages"/onnxruntime/transformers "$packages"/onnxruntime/quantization \
    "$packages"/onnxruntime/tools "$packages"/onnxruntime/datasets
# NumPy's build tools, and every package's own tests.
rm -rf "$packages"/numpy/f2py "$packages"/numpy/distutils
find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -name '*.pyi' -delete
# Fail the build if something that was removed is needed.
"$1"/bin/python -c 'import flask, gunicorn, ijson, msgspec, numpy, onnxruntime, prometheus_client, regex, tokenizers, tqdm'
