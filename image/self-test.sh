#!/bin/sh
# The image's own test: the toolkit is the one that was checked and compiles, every Python and every tool starts.
set -eu

(cd /opt/cuda && sha256sum --check --quiet /opt/hopperforge/toolkit.sha256)

folder=$(mktemp -d)
echo '__global__ void add(float *to) { to[threadIdx.x] += 1; }' >"$folder/test.cu"
nvcc -gencode arch=compute_90a,code=sm_90a -c "$folder/test.cu" -o "$folder/test.o"
test -s "$folder/test.o"
rm -r "$folder"

for python in /opt/python/*/bin/python; do
  "$python" --version
  "$python" -m pip --version
  "$python" -m build --version
done
/opt/python/cp39-cp39/bin/python /opt/hopperforge/measure.py true
auditwheel --version
patchelf --version
ninja --version
