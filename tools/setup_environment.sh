#!/usr/bin/env bash
# Creates the reference environment in .venv: torch, MMDetection, mmcv with its compiled operators
# and mmforget itself (editable), at the versions of requirements/reference.txt. Called by
# `make setup`; does nothing when the environment is up to date.
#
# mmcv is compiled from source (about 13 minutes on two cores). The wheel is kept, so that this
# happens once per machine, torch version and Python version.
#
# Environment variables:
#   PYTHON             the interpreter (default: python3.11, else a python3 of 3.10 to 3.12)
#   VENV               the environment's folder (default: .venv)
#   MMFORGET_CACHE     where the mmcv wheel and the build logs are kept (default: ~/.cache/mmforget)
#   MMFORGET_CUDA_OPS  1: compile mmcv's CUDA operators too (needs nvcc; not part of the tests)
#   MAX_JOBS           compilers run at a time (default: by cores and free memory)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "${VENV:-.venv}"
VENV="$(cd "${VENV:-.venv}" && pwd)"
readonly VENV
readonly CACHE="${MMFORGET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmforget}"
readonly REFERENCE=requirements/reference.txt
readonly CUDA_OPS="${MMFORGET_CUDA_OPS:-0}"
readonly STAMP="$VENV/.mmforget-setup"
TEMPORARY=''

say() { printf '[setup] %s\n' "$*"; }

die() {
    printf '[setup] error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '[setup]   %s\n' "$line" >&2; done
    exit 1
}

cleanup() {
    if [[ -n "$TEMPORARY" ]]; then rm -rf "$TEMPORARY"; fi
    if [[ ! -e "$VENV/bin" ]]; then
        rm -f "$VENV/.mmforget-lock"
        rmdir "$VENV" 2>/dev/null || true
    fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

pinned() { sed -n "s/^$1==\([^; ]*\).*/\1/p" "$REFERENCE" | head -n 1; }

fingerprint() {
    { cat requirements/*.txt setup.py tools/setup_environment.sh; echo "cuda=$CUDA_OPS"; pwd; } |
        sha256sum | cut -d ' ' -f 1
}

up_to_date() {
    [[ -f "$STAMP" && "$(cat "$STAMP")" == "$1" ]] && "$VENV/bin/python" -c '' 2>/dev/null
}

# lock FILE_DESCRIPTOR FILE: holds until this script ends or the descriptor is closed.
lock() {
    command -v flock >/dev/null || return 0
    if ! flock --nonblock "$1"; then
        say "another set-up holds $2, waiting for it"
        flock "$1"
    fi
}

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        supported "$PYTHON" && { echo "$PYTHON"; return; }
        die "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 that runs."
    fi
    for candidate in python3.11 python3 python3.12 python3.10; do
        supported "$candidate" && { echo "$candidate"; return; }
    done
    die 'no Python 3.10, 3.11 or 3.12 found (3.11 is the tested one).' \
        'Install it, for instance with: apt install python3.11 python3.11-venv python3.11-dev' \
        'or name it: make setup PYTHON=/path/to/python3.11'
}

create_venv() {
    local python created=0
    if "$VENV/bin/python" -c '' 2>/dev/null; then return; fi
    python="$(find_python)"
    say "creating $VENV with $("$python" --version)"
    [[ -e "$VENV/bin" ]] || created=1
    if ! "$python" -m venv "$VENV"; then
        if (( created )); then rm -rf "$VENV"; fi
        die "$python could not create a virtual environment." \
            'On Debian and Ubuntu its venv module is a package of its own: apt install python3-venv'
    fi
}

# What the compilation needs, checked before gigabytes are downloaded.
check_compiler() {
    local header
    command -v "${CXX:-g++}" >/dev/null ||
        die "mmcv has to be compiled and there is no ${CXX:-g++}." 'Install it: apt install g++'
    header="$("$VENV/bin/python" -c \
        'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"
    [[ -f "$header" ]] ||
        die "mmcv has to be compiled and Python's headers are missing ($header)." \
            'Install them: apt install python3-dev (python3.11-dev for python3.11)'
    if [[ "$CUDA_OPS" == 1 ]] && [[ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]] &&
        ! command -v nvcc >/dev/null; then
        die 'MMFORGET_CUDA_OPS=1 needs the CUDA toolkit, and there is no nvcc.' \
            'Set CUDA_HOME, or leave MMFORGET_CUDA_OPS unset for the CPU operators.'
    fi
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

install_requirements() {
    say 'installing the pinned requirements'
    pip install -q -c "$REFERENCE" pip setuptools wheel ninja psutil
    # One call, so that the resolver sees everything; the constraints keep torch where it is.
    # --no-compile: Python compiles what is imported, which is a small part of what is installed.
    pip install -q --no-compile -c "$REFERENCE" torchvision opencv-python mmengine mmdet \
        -r requirements/runtime.txt -r requirements/tests.txt -r requirements/lint.txt
    # OpenCV's usual wheel needs libGL, which servers and containers often lack.
    if ! "$VENV/bin/python" -c 'import cv2' 2>/dev/null; then
        say "OpenCV cannot be imported (no libGL?), putting its headless build in place"
        pip install -q -c "$REFERENCE" --force-reinstall --no-deps opencv-python-headless
        "$VENV/bin/python" -c 'import cv2' ||
            die 'OpenCV cannot be imported.' 'Try: apt install libgl1 libglib2.0-0'
    fi
}

parallel_jobs() {
    local cores memory limit
    cores="$(nproc)"
    memory="$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo 2>/dev/null || true)"
    limit="$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)"
    if [[ "$limit" =~ ^[0-9]+$ ]] && (( limit / 1073741824 < ${memory:-0} )); then
        memory=$(( limit / 1073741824 ))
    fi
    # A compiler on torch's headers takes up to 2 GiB.
    local jobs=$(( ${memory:-2} / 2 ))
    if (( jobs > cores )); then jobs=$cores; fi
    if (( jobs < 1 )); then jobs=1; fi
    echo "$jobs"
}

explain_failure() {
    local log="$1"
    local hints=()
    seen() { grep -qiE "$1" "$log"; }
    if seen "(g\+\+|c\+\+|gcc|cc1plus).*(no such file|not found)|unable to execute|failed to find C compiler"; then
        hints+=('There is no working C++ compiler. Install it: apt install g++')
    fi
    if seen 'Python\.h: No such file'; then
        hints+=("Python's headers are missing. Install them: apt install python3-dev")
    fi
    if seen 'Killed|out of memory|cannot allocate memory|signal 9|internal compiler error'; then
        hints+=('The compiler seems to have run out of memory. Try: make setup MAX_JOBS=1')
    fi
    if seen "No module named '?pkg_resources"; then
        hints+=('setuptools 81 and later have no pkg_resources: pip install "setuptools<81"')
    fi
    if seen 'You need C\+\+(17|20|23)|requires? (at least )?C\+\+(20|23)|C\+\+20 (or later )?compatible|std::(format|source_location)'; then
        hints+=("This torch asks for another C++ standard than mmcv's sources are compiled with" \
            "(torch 2.14 and later do). Keep the versions of $REFERENCE.")
    fi
    if seen 'No space left on device'; then
        hints+=("The disk is full; the build needs about 1 GB under ${TMPDIR:-/tmp} and $CACHE.")
    fi
    if seen 'Could not find a version|Connection|Temporary failure in name resolution|Read timed out'; then
        hints+=("pip could not fetch mmcv's source distribution: check the network or the index.")
    fi
    if (( ${#hints[@]} == 0 )); then
        hints+=("No known cause in the log; the first line with 'error:' in it is the one to read.")
    fi
    printf '%s\n' "${hints[@]}"
}

build_wheel() {
    local folder="$1" version="$2" log started jobs pid status=0 gpu=()
    check_compiler
    mkdir -p "$folder" "$CACHE/logs"
    log="$CACHE/logs/mmcv-$version-$(basename "$folder")-$(date +%Y%m%d-%H%M%S).log"
    TEMPORARY="$(mktemp -d "$folder/.build-XXXXXX")"
    jobs="${MAX_JOBS:-$(parallel_jobs)}"
    # mmcv compiles for CUDA whenever torch sees a GPU, and fails when there is no nvcc.
    if [[ "$CUDA_OPS" == 1 ]]; then gpu=(FORCE_CUDA=1); else gpu=(FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=); fi
    say "compiling mmcv $version with $jobs job(s): about 13 minutes on two cores, once"
    say "log: $log"
    started=$SECONDS
    # --no-cache-dir: pip would key a kept wheel by the sources alone, not by the torch it fits.
    # .venv/bin on PATH: torch looks there for ninja, without it one file is compiled at a time.
    set -m  # a process group of its own, so that an interrupt ends the compilers too
    env "${gpu[@]}" PATH="$VENV/bin:$PATH" MMCV_WITH_OPS=1 MAX_JOBS="$jobs" \
        "$VENV/bin/python" -m pip --disable-pip-version-check wheel --no-cache-dir --no-build-isolation --no-deps \
        --no-binary mmcv -v -w "$TEMPORARY" "mmcv==$version" >"$log" 2>&1 &
    pid=$!
    set +m
    trap 'kill -- -$pid 2>/dev/null; exit 130' INT
    trap 'kill -- -$pid 2>/dev/null; exit 143' TERM
    local next=60
    while kill -0 "$pid" 2>/dev/null; do
        sleep 2
        if (( SECONDS - started >= next )); then
            say "compiling mmcv, $(( (SECONDS - started) / 60 )) min"
            next=$(( next + 60 ))
        fi
    done
    wait "$pid" || status=$?
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if (( status != 0 )) || ! compgen -G "$TEMPORARY/mmcv-$version-*.whl" >/dev/null; then
        printf '\n' >&2
        tail -n 25 "$log" >&2
        printf '\n' >&2
        local hints
        mapfile -t hints < <(explain_failure "$log")
        die "mmcv $version did not compile (its last lines are above)." "${hints[@]}" "Full log: $log"
    fi
    mv "$TEMPORARY"/mmcv-"$version"-*.whl "$folder/"
    rm -rf "$TEMPORARY"
    TEMPORARY=''
    say "compiled mmcv $version in $(( SECONDS - started )) s"
}

mmcv_works() {
    (cd / && "$1" -W ignore -c 'from mmcv.ops import MultiScaleDeformableAttention, nms')
}

install_mmcv() {
    local version torch abi key folder wheel python="$VENV/bin/python" built=0 error
    version="$(pinned mmcv)"
    torch="$("$python" -c 'from importlib.metadata import version as v; print(v("torch").split("+")[0])')"
    abi="$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"
    key="torch-$torch-$abi"
    if [[ "$CUDA_OPS" == 1 ]]; then key="$key-cuda"; fi
    folder="$CACHE/wheels/$key"
    if [[ "$(cat "$VENV/.mmforget-mmcv" 2>/dev/null)" == "$version $key" ]] &&
        mmcv_works "$python" 2>/dev/null; then
        return
    fi
    mkdir -p "$folder"
    exec 9>"$folder/.lock"
    lock 9 "$folder"
    rm -rf "$folder"/.build-*  # what a killed set-up left behind; the lock says nobody uses it
    while true; do
        wheel="$(compgen -G "$folder/mmcv-$version-*.whl" | head -n 1 || true)"
        if [[ -z "$wheel" ]]; then
            build_wheel "$folder" "$version"
            built=1
            continue
        fi
        say "installing $(basename "$wheel") from $folder"
        if pip install -q --force-reinstall --no-deps "$wheel" && error="$(mmcv_works "$python" 2>&1)"; then
            break
        fi
        rm -f "$wheel"
        if (( built )); then
            printf '%s\n' "${error:-}" >&2
            die 'mmcv compiled, but its operators cannot be imported (see above).' \
                'The wheel has been removed.'
        fi
        say 'the kept mmcv wheel does not work in this environment: compiling it again'
    done
    exec 9>&-
    echo "$version $key" >"$VENV/.mmforget-mmcv"
}

main() {
    local started=$SECONDS print
    print="$(fingerprint)"
    if up_to_date "$print"; then
        say "$VENV is up to date"
        return
    fi
    exec 8>"$VENV/.mmforget-lock"
    lock 8 "$VENV"
    if up_to_date "$print"; then
        say "$VENV is up to date"
        return
    fi
    create_venv
    if ! compgen -G "$CACHE/wheels/torch-$(pinned torch)-*/mmcv-$(pinned mmcv)-*.whl" >/dev/null; then
        check_compiler
    fi
    install_requirements
    install_mmcv
    say 'installing mmforget (editable)'
    PYTHONWARNINGS=ignore pip install -q --no-build-isolation --no-deps -e .
    "$VENV/bin/python" -W ignore -c 'import mmcv, mmdet, mmengine, torch
print(f"[setup] torch {torch.__version__}, mmengine {mmengine.__version__},",
      f"mmcv {mmcv.__version__}, mmdet {mmdet.__version__}")'
    pip check -q || die 'pip finds the environment inconsistent (see above).'
    echo "$print" >"$STAMP"
    say "ready in $(( SECONDS - started )) s; activate it with: source $VENV/bin/activate"
}

main
