#!/bin/sh
# The demo: public commands on sample videos. Arguments: the environment's bin folder, and where to
# put the output. Videos and weights are kept in the cache; a second run computes nothing anew.
set -eu
bin=$1
out=$2
PATH="$bin:$PATH"
export PATH
mkdir -p "$out"

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

show tsp sample-videos "$out/videos"
show tsp weights fetch i3d-kinetics400
show tsp extract --videos "$out/videos" --out "$out/feats.h5" --weights i3d-kinetics400
show tsp inspect "$out/feats.h5"
show python tools/demo_picture.py "$out/feats.h5" dancer "$out/dancer.png"

printf '\nLook at it in the browser:\n  %s\n' "$bin/tsp view $out/feats.h5 --videos $out/videos --annotations $out/actions.csv"
