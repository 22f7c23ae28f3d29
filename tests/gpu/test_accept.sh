#!/bin/sh
# gapless bench gpu and its --accept as a user runs them, on the (fake) GPU of this folder at small sizes: all checks that
# can run pass, the report says that nothing was measured, and gapless plan does not take it for a measurement. Then what
# is missing, and what is typed wrongly.
set -u
. "$1/tests/gpu/says.sh"
export TMPDIR="$work/tmp" # the program's own folders: none is left
mkdir "$TMPDIR" || exit 1
limit=170

small="--quick --elements 256 --seconds 0.05 --rule dana-ga,shared-lga-dot"
# shellcheck disable=SC2086
says "everything that can run passes" 0 "fake device: not a measurement" "$program" bench gpu --accept $small --out made
for check in bits latency bandwidth runs kill; do
    has "$check passed" "^  $check  *passed" output
done
has "sanitizer: not on a fake" "^  sanitizer  *not run" output
has "no failure" "5 passed, 0 failed, 3 not run; fake device" output
has "the report says so" '"fake": true' made/gpu-acceptance.json
has "and why" '"note": "fake device: not a measurement"' made/gpu-acceptance.json
if grep -l link_bytes_per_s made/gpu-acceptance.json; then
    echo "FAIL the report has a link that nobody measured"
    failed=1
fi
says "no plan is made of it" 2 "no measurement" "$program" plan --measured made/gpu-acceptance.json

says "some checks" 0 "1 passed, 0 failed, 0 not run" "$program" bench gpu --accept --quick --only latency --out some
says "the table" 0 "fake device: not a measurement" "$program" bench gpu --elements 256 --seconds 0.05 --rule asgd --json t
has "as JSON" '"fake": true' t
says "bytes need no GPU" 0 "no rule is above the least" env FAKE_CUDA_GPUS=0 "$program" bench gpu --bytes

says "no GPU" 1 "GPU" env FAKE_CUDA_GPUS=0 "$program" bench gpu --accept
says "no driver" 1 "driver" env FAKE_CUDA_DRIVER=none "$program" bench gpu
says "no plugin" 1 "nothing.so" env GAPLESS_CUDA_PLUGIN="$work/nothing.so" "$program" bench gpu --accept
says "a call that fails" 1 "bits *FAILED" env FAKE_CUDA_FAIL=3000 "$program" bench gpu --accept --quick --only bits,latency \
    --out failing
has "the next check runs all the same" "latency *passed" output
says "two GPUs" 2 "one GPU at a time" env FAKE_CUDA_GPUS=2 "$program" bench gpu --device cuda:all
says "the processor" 2 "names no GPUs" "$program" bench gpu --device cpu
says "a check that is none" 2 "one of: bits, sanitizer" "$program" bench gpu --accept --only bit
says "a rule that is none" 2 "knows no rule .dana" "$program" bench gpu --rule dana
says "too few elements" 2 "at least 16" "$program" bench gpu --elements 3
says "a list that ends in a comma" 2 "whole number" "$program" bench gpu --elements 64,
says "no seconds" 2 "above 0" "$program" bench gpu --seconds 0
says "checks without --accept" 2 "--only is for --accept" "$program" bench gpu --only bits
says "no such folder" 1 "cannot make the folder" "$program" bench gpu --accept --only latency --out no/such/folder
says "a word" 2 "is not an option" "$program" bench gpu more
says "help" 0 "usage: gapless bench gpu" "$program" bench gpu --help

if [ -n "$(ls -A "$TMPDIR")" ]; then
    ls -l "$TMPDIR" >left
    fail "something was left:" left
fi
exit $failed
