#!/bin/bash
# The lab: real libibverbs and librdmacm against real kernel devices, on a machine that has none. A guest is booted in
# qemu (emulated: no KVM is needed) whose root is this machine's, read-only, so what was built here is what runs there.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 125
source_dir=$(cd "$here/../.." && pwd -P)
# shellcheck source=setup.sh
. "$here/setup.sh"
# shellcheck source=qemu.sh
. "$here/qemu.sh"

usage() {
    cat <<'TEXT'
usage: lab.sh setup | lacks
       lab.sh run [OPTIONS] [--] COMMAND [ARGUMENT...]
       lab.sh two [OPTIONS] SCRIPT [ARGUMENT...]

  setup   download and unpack the guest's kernel, build siw; once, some 225 MB of packages and a
          minute; kept in GAPLESS_LAB (~/.cache/gapless/lab)
  lacks   print the packages that are to be installed first, if any
  run     boot a guest, run the command in it as root and end with its exit status. What it prints
          comes out as it goes
  two     boot two guests on one wire, a (10.9.0.1, fd09::1) and b (10.9.0.2, fd09::2), and source
          the bash script here; what it can call is described in two.sh

  --device rxe|siw|both|none   RDMA devices: rxe0 at 10.1.1.1 and fd01::1, siw0 at 10.2.1.1 and fd02::1
                               (both is the default of run, rxe of two, where it is at the guest's address)
  --share DIR      a folder the guest may write, under the same name; may be repeated.
                   The default is the working directory
  --dir DIR        where the command starts; the default is the working directory
  --env NAME=VALUE may be repeated. GAPLESS_*, *SAN_OPTIONS and OPENBLAS_NUM_THREADS are handed on
  --user KIB       not as root but as nobody, who may lock KIB of memory ("unlimited" too)
  --mtu N          of the network devices; 9000, between two guests 4200
  --memory SIZE    2G, each of two guests 1G
  --cpus N         2, each of two guests 1
  --timeout S      the guest is ended after S seconds; 120
  --console        print what the kernel said, too

Exit status: the command's (the script's); 77 there can be no lab here; 120 the guest ended without
a word (the end of its console is printed); 121 it ran out of time; 125 misuse, or the lab itself failed.
GAPLESS_LAB_ACCEL=tcg|kvm|kvm-or-tcg decides on the accelerator; otherwise KVM is tried first where the
processor virtualises, and left if the kernel there says nothing for 8 seconds.
TEXT
}
misuse() {
    echo "lab: $*; see lab.sh --help" >&2
    exit 125
}

mode=${1-}
case $mode in
lacks) lab_lacks && exit 0 ;;
setup | run | two) shift ;;
-h | --help | help) usage && exit 0 ;;
*) misuse "no command '$mode'" ;;
esac

device='' mtu='' memory='' cpus='' limit=120 dir=$PWD user='' console=''
shares=() settings=()
while [ $# -gt 0 ]; do
    case $1 in
    --device | --share | --dir | --env | --user | --mtu | --memory | --cpus | --timeout)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        ;;
    esac
    case $1 in
    --device)
        case $2 in
        rxe | siw | both | none) device=$2 ;;
        *) misuse "--device '$2' is none of rxe, siw, both, none" ;;
        esac
        ;;
    --share)
        [ -d "$2" ] || misuse "--share '$2' is not a folder"
        shares+=("$(cd "$2" && pwd -P)")
        ;;
    --dir) dir=$2 ;;
    --env)
        case $2 in
        [A-Za-z_]*=*) settings+=("$2") ;;
        *) misuse "--env '$2' is not NAME=VALUE" ;;
        esac
        ;;
    --user) user=$2 ;;
    --mtu) mtu=$2 ;;
    --memory) memory=$2 ;;
    --cpus) cpus=$2 ;;
    --timeout)
        [[ $2 =~ ^[1-9][0-9]*$ ]] || misuse "--timeout '$2' is not a number of seconds"
        limit=$2
        ;;
    --console) console=1 && shift && continue ;;
    --) shift && break ;;
    -h | --help) usage && exit 0 ;;
    -*) misuse "no option '$1'" ;;
    *) break ;;
    esac
    shift 2
done
[ ${#shares[@]} -gt 0 ] || shares=("$(pwd -P)")

# Whether as a child of ctest, of a shell or of nobody: whatever ends this script ends the guests.
trap lab_clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

lab_setup || exit $?
[ "$mode" != setup ] || {
    echo "lab: ready in ${lab_kernel%/*}"
    exit 0
}
[ $# -gt 0 ] || misuse "$mode: what shall run?"
lab_state || exit 125

if [ "$mode" = run ]; then
    lab_device=${device:-both} lab_mtu=${mtu:-9000} lab_memory=${memory:-2G} lab_cpus=${cpus:-2}
    lab_command "$state/a/command-main" "$@"
    lab_boot a '' || exit 125
    lab_wait a
    result=$?
    [ -z "$console" ] || cat "$state/a/console" >&2
    exit "$result"
fi

script=$1
shift
[ -r "$script" ] || misuse "two: no script '$script'"
lab_device=${device:-rxe} lab_mtu=${mtu:-4200} lab_memory=${memory:-1G} lab_cpus=${cpus:-1}
[ "$lab_device" != both ] || misuse "two: one device between two guests"
# shellcheck source=two.sh
. "$here/two.sh"
two_run "$script" "$@"
