# shellcheck shell=bash
# What the lab boots, made once and kept in a cache; sourced by lab.sh. Nothing is installed: the kernel package of the
# distribution is downloaded and unpacked, and of it a few modules and the kernel itself are kept (some 70 MB).
#
#   $cache/lock                 held while somebody makes something
#   $cache/current              the name of the folder to use
#   $cache/RELEASE_VERSION/     vmlinux, busybox, modules/*.ko, order (one a line), made-with, initrd-SUM.gz
#
# A folder appears under its name when it is whole, so whoever is killed half-way leaves only a scratch folder, which
# the next one to hold the lock removes.

cache=${GAPLESS_LAB:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/gapless/lab}

# The modules of the guest; those they depend on are found. rxe asks for crc32 by name, so nothing depends on it.
lab_modules="virtio_pci 9p 9pnet_virtio overlay virtio_net virtio_console crc32_generic libcrc32c
    rdma_rxe rdma_ucm ib_umad dummy veth sch_netem"

# What the lab needs of this machine: "command:package" each.
lab_tools="qemu-system-x86_64:qemu-system-x86 modprobe:kmod cpio:cpio xz:xz-utils zstd:zstd rdma:iproute2
    ibv_devices:ibverbs-utils rping:rdmacm-utils ib_write_bw:perftest setpriv:util-linux flock:util-linux
    gcc:gcc make:make"

# Prints the packages this machine lacks, or nothing, as where there can be no lab.
lab_lacks() {
    local tool lacking=()
    [ "$(uname -m)" = x86_64 ] || return 0
    for tool in $lab_tools; do
        command -v "${tool%%:*}" >/dev/null || lacking+=("${tool##*:}")
    done
    if ! ls /usr/lib/*/libibverbs/librxe-rdmav*.so >/dev/null 2>&1; then
        lacking+=(ibverbs-providers)
    fi
    echo "${lacking[*]}"
}

# The place where the kernel is kept, or nothing if it is not there yet or was made with other modules.
lab_place() {
    local name
    name=$(cat "$cache/current" 2>/dev/null) &&
        [ "$(cat "$cache/$name/made-with" 2>/dev/null)" = "$lab_modules" ] && echo "$cache/$name"
}

# Downloads packages into the folder; the lists of packages are fetched only if it fails without.
lab_download() { # folder, packages...
    local folder=$1
    shift
    command -v apt-get >/dev/null || {
        echo "apt-get is not found: the kernel for the lab comes from a Debian package" >&2
        return 1
    }
    lab_apt() { (cd "$folder" && apt-get download -q "$@" >"$folder/apt.log" 2>&1); }
    lab_apt "$@" && return 0
    if [ "$(id -u)" = 0 ]; then
        apt-get update -q </dev/null >/dev/null 2>&1
    else
        sudo -n apt-get update -q </dev/null >/dev/null 2>&1
    fi
    lab_apt "$@" && return 0
    echo "not found: $* (apt-get download failed: $(grep -m1 '^E:' "$folder/apt.log"))" >&2
    return 1
}

# The compressed kernel of a bzImage is unpacked here: in an emulated guest it would take many seconds of every boot.
# Where it lies is said by the header that the boot protocol describes.
lab_unpack_kernel() { # bzImage, result
    local sectors offset length magic
    sectors=$(od -An -tu1 -j 0x1f1 -N1 "$1")
    offset=$(od -An -tu4 -j 0x248 -N4 "$1")
    length=$(od -An -tu4 -j 0x24c -N4 "$1")
    tail -c +$(((sectors + 1) * 512 + offset + 1)) "$1" | head -c "$length" >"$2.packed"
    # The unpackers complain of the size that follows the data, and have written all by then.
    magic=$(od -An -tx1 -N4 "$2.packed" | tr -d ' ')
    case $magic in
    fd377a58) xz -dc --single-stream <"$2.packed" >"$2" 2>/dev/null ;;
    28b52ffd) zstd -dcq <"$2.packed" >"$2" 2>/dev/null ;;
    1f8b*) gzip -dc <"$2.packed" >"$2" 2>/dev/null ;;
    esac
    rm -f "$2.packed"
    [ "$(head -c 4 "$2" | tail -c 3)" = ELF ] || {
        echo "the kernel in $1 is packed in a way this script does not know ($magic)" >&2
        return 1
    }
}

# The modules the guest loads, unpacked, and the order to load them in.
lab_collect_modules() { # unpacked package, release, result
    local module file name
    mkdir "$3/modules"
    depmod -b "$1" "$2" || return 1
    for module in $lab_modules; do
        modprobe -d "$1" -S "$2" --show-depends "$module" 2>/dev/null
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$3/files"
    while read -r file; do
        name=${file##*/}
        name=${name%%.ko*}.ko
        case $file in
        *.xz) xz -dc "$file" >"$3/modules/$name" ;;
        *.zst) zstd -dcq "$file" >"$3/modules/$name" ;;
        *) cp "$file" "$3/modules/$name" ;;
        esac || return 1
        echo "$name" >>"$3/order"
    done <"$3/files"
    rm "$3/files"
    [ -e "$3/modules/rdma_rxe.ko" ] && [ -e "$3/modules/9p.ko" ] || {
        echo "the kernel package of $2 has no rdma_rxe or no 9p" >&2
        return 1
    }
}

# siw, the iWARP device in software, is in no kernel of the distribution: it is built from its kernel's own source.
lab_build_siw() { # release, version, scratch, result
    local release=$1 version=$2 at=$3 series headers kbuild file flags
    series=$(cut -d. -f1,2 <<<"$release")
    kbuild=$(apt-cache depends "linux-headers-$release" | sed -n 's/.*Depends: \(linux-kbuild-.*\)/\1/p' | head -n 1)
    headers=$(apt-cache depends "linux-headers-$release" | sed -n 's/.*Depends: \(linux-headers-.*common\)/\1/p')
    mkdir "$at/siw"
    lab_download "$at/siw" "linux-source-$series=$version" "linux-headers-$release=$version" "$headers=$version" \
        "$kbuild=$version" || return 1
    for file in "$at"/siw/linux-headers*.deb "$at"/siw/linux-kbuild*.deb "$at"/siw/linux-source*.deb; do
        dpkg-deb -x "$file" "$at/siw" && rm "$file" || return 1
    done
    # What names /usr means the unpacked one.
    sed -i "s|/usr/src|$at/siw/usr/src|g" "$at/siw/usr/src/linux-headers-$release/Makefile"
    mkdir "$at/siw/build"
    tar -xf "$at"/siw/usr/src/linux-source-*.tar.* -C "$at/siw/build" --strip-components=5 --wildcards \
        '*/drivers/infiniband/sw/siw/*' || return 1
    cat >"$at/siw/build/Makefile" <<'MAKE'
obj-m += siw.o
siw-y := siw_cm.o siw_cq.o siw_main.o siw_mem.o siw_qp.o siw_qp_tx.o siw_qp_rx.o siw_verbs.o
MAKE
    flags=(-C "$at/siw/usr/src/linux-headers-$release" "M=$at/siw/build" -j"$(nproc)")
    env -u MAKEFLAGS -u CFLAGS -u LDFLAGS make "${flags[@]}" modules </dev/null >"$at/siw/log" 2>&1 || {
        echo "siw did not build:" >&2
        tail -n 5 "$at/siw/log" >&2
        return 1
    }
    strip -g "$at/siw/build/siw.ko" -o "$4/modules/siw.ko" && echo siw.ko >>"$4/order"
}

# Everything, from the packages to the folder under its name. Runs with the lock held.
lab_make() {
    local release version at name
    release=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-//p' | head -n 1)
    if [ -z "$release" ]; then
        lab_download "$cache" linux-image-amd64 2>/dev/null && rm -f "$cache"/linux-image-amd64_*.deb
        release=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-//p' | head -n 1)
    fi
    [ -n "$release" ] || {
        echo "the package linux-image-amd64 is not found: try apt-get update" >&2
        return 1
    }
    rm -rf "$cache"/scratch.*
    at=$(mktemp -d "$cache/scratch.XXXXXX") && mkdir "$at/result" || return 1
    lab_download "$at" "linux-image-$release" busybox-static || return 1
    dpkg-deb -x "$at"/busybox-static*.deb "$at" && rm "$at"/busybox-static*.deb &&
        cp "$(find "$at" -path '*/bin/busybox')" "$at/result/busybox" || return 1
    version=$(dpkg-deb -f "$at"/linux-image-*.deb Version)
    name=${release}_$version
    dpkg-deb -x "$at"/linux-image-*.deb "$at" && rm "$at"/linux-image-*.deb || return 1
    [ -e "$at/lib" ] || ln -s usr/lib "$at/lib" # where the modules are differs from release to release
    lab_unpack_kernel "$at/boot/vmlinuz-$release" "$at/result/vmlinux" || return 1
    lab_collect_modules "$at" "$release" "$at/result" || return 1
    lab_build_siw "$release" "$version" "$at" "$at/result" || return 1
    echo "$lab_modules" >"$at/result/made-with"
    rm -rf "${cache:?}/$name" && mv "$at/result" "$cache/$name" && echo "$name" >"$cache/current.new" &&
        mv "$cache/current.new" "$cache/current" && rm -rf "$at"
}

# The first program of the guest and the modules it loads; named by what goes in, so that a change makes a new one.
lab_make_initrd() { # place: prints the file
    local place=$1 sum at file
    sum=$(cat "$here/init.sh" "$place/order" "$place/busybox" | cksum | tr ' ' -)
    file=$place/initrd-$sum.gz
    if [ ! -s "$file" ]; then
        at=$(mktemp -d "$cache/scratch.XXXXXX") || return 1
        mkdir "$at/bin" "$at/proc" "$at/sys" "$at/dev" "$at/lab" "$at/lower" "$at/over" "$at/root"
        cp "$place/busybox" "$at/bin/busybox" && cp "$here/init.sh" "$at/init" && chmod +x "$at/init" &&
            cp -r "$place/modules" "$place/order" "$at" || return 1
        (cd "$at" && find . | cpio -o -H newc --quiet) | gzip -1 >"$file.new" || return 1
        rm -rf "$at"
        rm -f "$place"/initrd-*.gz
        mv "$file.new" "$file"
    fi
    echo "$file"
}

# Makes what is missing and sets lab_kernel and lab_initrd. The lock lets two that start together share the work.
lab_setup() {
    local reason place
    if [ "$(uname -m)" != x86_64 ]; then
        echo "lab: it needs an x86-64 machine" >&2
        return 77
    fi
    reason=$(lab_lacks)
    if [ -n "$reason" ]; then
        echo "lab: not installed: $reason" >&2
        return 77
    fi
    case $cache in
    [!/]* | *[[:space:]:]*)
        echo "lab: the cache '$cache' has to be an absolute path without blanks and colons (GAPLESS_LAB)" >&2
        return 77
        ;;
    esac
    mkdir -p "$cache" 2>/dev/null && exec {lab_lock}>"$cache/lock" || {
        echo "lab: the cache $cache cannot be written; GAPLESS_LAB names another place" >&2
        return 77
    }
    if ! flock -w 600 "$lab_lock"; then
        echo "lab: somebody has held $cache/lock for ten minutes" >&2
        return 77
    fi
    place=$(lab_place)
    if [ -z "$place" ]; then
        echo "lab: making the guest's kernel, once (225 MB of packages; a minute)" >&2
        reason=$( (lab_make) 2>&1 >/dev/null {lab_lock}>&-)
        place=$(lab_place)
        if [ -z "$place" ]; then
            rm -rf "$cache"/scratch.*
            echo "lab: no kernel for the guest, not installed: ${reason:-no reason given}" >&2
            return 77
        fi
    fi
    lab_kernel=$place/vmlinux
    lab_initrd=$(lab_make_initrd "$place") || return 77
    exec {lab_lock}>&-
}
