#!/bin/sh
# Gives every Python of the base its place in /opt/python, where cibuildwheel looks, with the tools of the wheels in $1.
set -eu

for python in /usr/bin/python3.[0-9] /usr/bin/python3.[0-9][0-9]; do
  if [ -x "$python" ]; then
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    "$python" -m venv --without-pip "/opt/python/$tag-$tag"
  fi
done

# cibuildwheel runs its own helpers with this one in every image.
if [ ! -e /opt/python/cp39-cp39 ]; then
  set -- "$1" /opt/python/cp3*
  ln -s "$2" /opt/python/cp39-cp39
fi

pip=$(echo "$1"/pip-*.whl)
for folder in /opt/python/cp3*; do
  if [ ! -L "$folder" ]; then
    # pip's wheel can run as it is; --no-deps because the list of wheels is complete for Python 3.9
    "$folder/bin/python" "$pip/pip" install --quiet --no-index --no-deps --no-cache-dir "$1"/*.whl
  fi
done
