#!/bin/sh
# cpack makes two Debian packages, which name what they need, install into an empty root with dpkg, and there the program
# trains, the examples compile, the manual is whole and the systemd unit is one.
set -u
source=${1:?"usage: $0 SOURCE BUILD"}
build=${2:?"usage: $0 SOURCE BUILD"}
scratch=$build/tests/test_deb
root=$scratch/root
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
fail() {
    printf 'FAILED: %s\n' "$*"
    [ ! -s "$scratch/log" ] || tail -n 30 "$scratch/log"
    exit 1
}
run() {
    "$@" >"$scratch/log" 2>&1 || fail "$*"
}
for tool in dpkg dpkg-deb dpkg-shlibdeps; do
    command -v $tool >/dev/null || { echo "SKIP: $tool is not installed (Debian: dpkg-dev)" && exit 77; }
done

rm -rf "$scratch"
mkdir -p "$scratch/packages" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/triggers"
: >"$root/var/lib/dpkg/status"
(cd "$scratch" && run cpack --config "$build/CPackConfig.cmake" -B "$scratch/packages") || exit 1
architecture=$(dpkg --print-architecture)
runtime=$scratch/packages/gapless_${version}_$architecture.deb
development=$scratch/packages/gapless-dev_${version}_$architecture.deb
[ -f "$runtime" ] && [ -f "$development" ] || fail "cpack made $(ls "$scratch/packages")"

# What the loader will look for is in Depends; libraries are announced to the loader and to other packages.
depends=$(dpkg-deb -f "$runtime" Depends)
for package in libc6 libopenblas0 libjansson4 libinih1 zlib1g; do
    case $depends in *$package*) ;; *) fail "gapless does not depend on $package: $depends" ;; esac
done
case $(dpkg-deb -f "$development" Depends) in
*"gapless (= $version)"*) ;;
*) fail "gapless-dev does not depend on gapless of its version" ;;
esac
dpkg-deb -I "$runtime" shlibs 2>/dev/null | grep -q '^libgapless 0' || fail "gapless has no shlibs"
dpkg-deb -I "$runtime" postinst 2>/dev/null | grep -q ldconfig || fail "gapless does not call ldconfig"
dpkg-deb -f "$runtime" Description | head -n 1 | grep -q training || fail "gapless has no description"
for package in "$runtime" "$development"; do
    name=$(dpkg-deb -f "$package" Package)
    dpkg-deb -c "$package" | awk '$1 !~ /^[dl-]r[w-][x-]r-[x-]r-[x-]/ && $1 !~ /^l/ { print; bad = 1 } END { exit bad }' ||
        fail "$name: the files above have another mode than 755 or 644"
    dpkg-deb -c "$package" | grep "usr/share/doc/$name/copyright" >/dev/null || fail "$name has no copyright"
done

# dpkg wants to be root, to give files an owner; for another user they are unpacked. The only script calls ldconfig, which
# the root has not.
if [ "$(id -u)" = 0 ]; then
    run dpkg --root="$root" --force-depends --force-script-chrootless -i "$runtime" "$development"
    dpkg --root="$root" -s gapless | grep -q '^Status: install ok' || fail "dpkg has not installed gapless"
else
    run dpkg-deb -x "$runtime" "$root"
    run dpkg-deb -x "$development" "$root"
fi

program=$root/usr/bin/gapless
"$program" --version | grep -q "$version" || fail "the installed program does not say its version"
run "$program" train --data synthetic --model softmax --workers 2 --epochs 1 --out "$scratch/run"
[ -s "$scratch/run/model.safetensors" ] || fail "the installed program keeps no model"
run "$program" study "$root/usr/share/gapless/studies/first.ini" --dry-run --out "$scratch/study"
run "$root/usr/bin/gapless-fetch-data" --help
for file in share/doc/gapless/README.md share/doc/gapless/docs/rdma.md share/man/man1/gapless.1 \
    share/man/man1/gapless-train.1 share/bash-completion/completions/gapless share/zsh/site-functions/_gapless \
    share/doc/gapless/contrib/slurm/gapless.sbatch share/doc/gapless/contrib/container/Containerfile; do
    [ -s "$root/usr/$file" ] || fail "$file is not installed"
done
# Links of the installed README to what is installed hold.
grep -o '](\(docs\|bench/results\|examples\)[^)#]*' "$source/README.md" | cut -c3- | sort -u | while read -r file; do
    [ -e "$root/usr/share/doc/gapless/$file" ] || echo "$file"
done >"$scratch/missing"
[ ! -s "$scratch/missing" ] || fail "README.md names $(cat "$scratch/missing"), not installed beside it"

if command -v pkg-config >/dev/null; then
    examples=$root/usr/share/doc/gapless/examples/c
    # shellcheck disable=SC2046
    PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig run "${CC:-cc}" "$examples/own_model.c" -o "$scratch/own_model" \
        $(PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig pkg-config --cflags --libs gapless) -lm
    LD_LIBRARY_PATH=$root/usr/lib run "$scratch/own_model" "shm:deb-$$"
fi

unit=$scratch/gapless-worker@.service
sed "s|/usr/bin/gapless|$program|" "$source/contrib/systemd/gapless-worker@.service" >"$unit"
if command -v systemd-analyze >/dev/null; then
    run systemd-analyze verify --man=no "$unit"
    [ ! -s "$scratch/log" ] || fail "systemd-analyze has something to say of the unit"
fi
run bash -n "$source/contrib/slurm/gapless.sbatch"
echo "gapless and gapless-dev $version, $(du -k "$runtime" | cut -f1) and $(du -k "$development" | cut -f1) KB; depends: $depends"
