#!/bin/sh
# ctest: plain
# The wheel is made without a network, installs into a fresh virtual environment and trains there; an editable install of the
# source finds the build. Run as: test_wheel.sh SOURCE BUILD
set -u
source=$1 build=$2
python=/usr/bin/python3
[ -e "$build/libgapless.so" ] || { echo "SKIP: this build has no shared library" && exit 77; }
for module in pip ensurepip:venv setuptools wheel torch; do
    "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('${module%%:*}') is None)" 2>/dev/null ||
        { echo "SKIP: python3-${module##*:} is not installed" && exit 77; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/gapless-wheel.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH GAPLESS_LIBRARY GAPLESS_MASTER GAPLESS_OFFER RANK WORLD_SIZE
export PYTHONDONTWRITEBYTECODE=1 PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 OPENBLAS_NUM_THREADS=1
fail() {
    echo "NOT: $1"
    exit 1
}

cmake --build "$build" --target wheel >"$work/log" 2>&1 || { cat "$work/log" && fail "the wheel is made"; }
wheel=$(ls "$build"/wheel/gapless-*-py3-none-linux_*.whl) || fail "the wheel is of this platform and of any Python"
"$python" -m zipfile -l "$wheel" >"$work/list"
for file in gapless/__init__.py gapless/worker.py gapless/py.typed gapless/libgapless.so; do
    grep -q "^$file " "$work/list" || fail "$file is in the wheel"
done
listed=$(grep -c '^gapless/.*\.py ' "$work/list")
[ "$listed" -eq "$(find "$source/python/gapless" -name '*.py' | wc -l)" ] || fail "every file of the package is in the wheel"
case $wheel in
*/gapless-"$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$source/python/gapless/__init__.py")"-*) ;;
*) fail "the wheel's version is the package's: $wheel" ;;
esac
grep -q "^project(gapless VERSION $(sed -n 's/^version = "\(.*\)"/\1/p' "$source/python/pyproject.toml") " "$source/CMakeLists.txt" ||
    fail "pyproject.toml has the version of CMakeLists.txt"

"$python" -m venv --system-site-packages "$work/venv" || fail "a virtual environment"
"$work/venv/bin/pip" install --quiet "$wheel" || fail "the wheel installs"
cd "$work" || exit 1
"$work/venv/bin/python" - <<'END' || fail "it trains"
import os, sys
import torch, gapless
from gapless import _library

torch.set_num_threads(1)
model, (x, y) = torch.nn.Linear(4, 2), (torch.randn(64, 4), torch.randint(0, 2, (64,)))
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
with gapless.Worker(model, lr=1e-2) as worker:
    for x, y in worker.batches(loader):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        worker.step(loss)
    assert worker.stats().gradients == 8
path = _library.load().path
assert os.path.dirname(path) == os.path.dirname(gapless.__file__), path
assert gapless.__file__.startswith(sys.prefix), gapless.__file__
END
"$work/venv/bin/python" -m gapless >"$work/said" || fail "python -m gapless"
grep -q '^library: .*/site-packages/gapless/libgapless.so$' "$work/said" || fail "it names the wheel's library: $(cat "$work/said")"

"$work/venv/bin/pip" uninstall --quiet --yes gapless
cp -r "$source/python" "$work/python" && mkdir -p "$work/engine" "$work/build" && cp "$source/engine/gapless.map" "$work/engine"
ln -s "$build/libgapless.so" "$work/build/libgapless.so"
"$work/venv/bin/pip" install --quiet --no-build-isolation --no-deps -e "$work/python" || fail "an editable install"
"$work/venv/bin/python" -m gapless >"$work/said" || fail "python -m gapless of an editable install"
grep -q "^library: $work/build/libgapless.so\$" "$work/said" || fail "an editable install finds the build: $(cat "$work/said")"
ln -sf /dev/null "$work/build/libgapless.so"
if "$work/venv/bin/python" -m gapless >"$work/said" 2>&1; then
    grep -q "^library: libgapless.so" "$work/said" || fail "a library that is none was loaded: $(cat "$work/said")"
else
    grep -q "libgapless.so was not found" "$work/said" || fail "a missing library is said in words: $(cat "$work/said")"
fi
echo "ok"
