#!/bin/sh
# Unpack locked wheels into a prefix, compile them, and have our own plugins prepare what they want
# ready. Offline, and without running anything of other people's packages: -S keeps their .pth files
# from being read.
#
#   install.sh DIRECTORY PREFIX     DIRECTORY holds requirements.txt and the wheels
set -eu
python=/opt/workspace/bin/python
site=$2/lib/$(basename "$(readlink -f $python)")/site-packages
mkdir -p "$site"
/build/installer/bin/pip --disable-pip-version-check --no-cache-dir --python $python install \
  --no-index --find-links "$1" --require-hashes --no-deps --only-binary :all: --no-compile \
  --ignore-installed --prefix "$2" --requirement "$1/requirements.txt"
# unchecked-hash: no .py is ever looked at again, whatever its date says after copying layers.
$python -ISB -m compileall -q --invalidation-mode unchecked-hash "$site"
$python -IB -m cloudapp_workspace.image_build "$site"
