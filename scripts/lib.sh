# How does a script get the Python environment it needs? Sourced by run, test, check and lock.
# shellcheck shell=bash
#
#   prepare run    .venv with what the program needs        (requirements.txt)
#   prepare test   the same and what its tests need         (requirements-dev.txt)
#
# A stamp in .venv says what was installed for which Python and checkout; while it still holds, nothing is done.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${FORWARDER_VENV:-$ROOT/.venv}
PYTHON=$VENV/bin/python
# uv must take the Python that is here and not fetch another.
export UV_PYTHON_DOWNLOADS=never
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Container images like to set it. Every start of a process would then compile all modules anew: half a second of CPU, and the
# tests start hundreds.
unset PYTHONDONTWRITEBYTECODE

prepare() {
    local kind=$1 requirements=$ROOT/requirements.txt
    [ "$kind" = run ] || requirements=$ROOT/requirements-dev.txt
    if ! _is_stamped "$kind" "$requirements"; then
        _locked _install "$kind" "$requirements"
    fi
}

_is_stamped() {
    [ -x "$PYTHON" ] && [ -f "$VENV/stamp-$1" ] && _stamp "$2" | cmp -s - "$VENV/stamp-$1"
}

# The Python's version: a system upgrade under the environment leaves its packages behind. The checkout's place: the
# environment points to it.
_stamp() {
    "$PYTHON" -I -S -c 'import sys; print(sys.version)' || return 1
    echo "$ROOT"
    cat "$1"
}

# Two scripts started at once must not install into each other's half-made environment.
_locked() {
    mkdir -p "$VENV"
    if command -v flock >/dev/null; then
        # Not $VENV/.lock: that is uv's own, and it would wait for us.
        exec 9>"$VENV/prepare.lock"
        flock 9
        "$@"
        exec 9>&-
    else
        "$@"
    fi
}

_install() {
    local kind=$1 requirements=$2 folder
    if _is_stamped "$kind" "$requirements"; then
        return # another script was faster
    fi
    _say "preparing ${VENV#"$PWD"/} from ${requirements##*/} (the first time takes a little while)"
    _make_venv
    rm -f "$VENV/stamp-$kind"
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$PYTHON" --require-hashes -r "$requirements" || _die "installing failed, see above"
    else
        "$PYTHON" -m pip install --quiet --require-hashes -r "$requirements" || _die "installing failed, see above"
    fi
    # The package itself is used where it lies: no build, and a change counts at once.
    folder=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$ROOT" >"$folder/mailkey-forwarder.pth"
    _stamp "$requirements" >"$VENV/stamp-$kind.part"
    mv "$VENV/stamp-$kind.part" "$VENV/stamp-$kind"
}

_make_venv() {
    local python
    # One that runs is kept, whoever made it; what an interrupted start left is made anew.
    if "$PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        if command -v uv >/dev/null || "$PYTHON" -m pip --version >/dev/null 2>&1; then
            return
        fi
    fi
    python=$(_find_python) || _die "Python 3.11 or newer is needed, and none was found. On Debian or Ubuntu:
    sudo apt-get install python3 python3-venv"
    # Links to a Python that is gone stay where they are otherwise.
    rm -f "$VENV"/bin/python*
    if command -v uv >/dev/null; then
        uv venv --quiet --allow-existing --python "$python" "$VENV" || _die "making $VENV failed, see above"
    elif "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$VENV" || _die "making $VENV failed, see above"
    else
        _die "$python has no venv module. On Debian or Ubuntu:
    sudo apt-get install python3-venv
or, on any system, install uv and start again."
    fi
}

# The user's own python3 first, then the newest.
_find_python() {
    local name
    for name in ${FORWARDER_PYTHON:+"$FORWARDER_PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            # Behind pyenv and its like the name is a shim that the environment should not point to.
            "$name" -I -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

_say() {
    echo "${0##*/}: $*" >&2
}

_die() {
    _say "$*"
    exit 1
}
