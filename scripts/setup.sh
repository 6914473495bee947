#!/usr/bin/env bash
# Make .venv with everything that the project needs: pinned packages, a pure-Python Detectron2, and
# the project itself. No compiler is needed. Running it again does nothing; after an interruption,
# running it again repairs what was left.
#
#   bash scripts/setup.sh [--torch 2.7.1]      (PYTHON=python3.12 chooses the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "error: $*" >&2; exit 2; }
say() { echo "setup: $*"; }

torch=""
while [ $# -gt 0 ]; do
  case "$1" in
    --torch) [ $# -ge 2 ] || die "--torch needs a version, such as --torch 2.7.1"; torch="$2"; shift 2 ;;
    --torch=*) torch="${1#--torch=}"; shift ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "unknown option $1; usage: bash scripts/setup.sh [--torch VERSION]" ;;
  esac
done

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON: there is no such program"
    supported "$PYTHON" || die "PYTHON=$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11, 3.12 or 3.13 is needed"
    echo "$PYTHON"; return
  fi
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then echo "$candidate"; return; fi
  done
  die "Python 3.11, 3.12 or 3.13 is needed; found $(python3 -V 2>&1 || echo none): install one, or name it with PYTHON=/path/to/python3.11"
}

# An existing environment keeps its interpreter and its torch unless others are asked for.
stamp=.venv/setup.stamp    # what it was made from, once all is done
choice=.venv/torch.choice  # the torch that was asked for, before that too
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && supported .venv/bin/python; then
  python=.venv/bin/python
else
  python=$(find_python)
fi
if [ -z "$torch" ]; then
  torch=$(cat "$choice" "$stamp" 2>/dev/null | sed -n 's/^torch //p' | head -n 1 || true)
fi
pins=$("$python" scripts/torch_versions.py choose $torch) || exit 2
torch=${pins#torch==}; torch=${torch%% *}

# What the environment is made from: a second run compares this and stops.
fingerprint() {
  echo "torch $torch"
  echo "python $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  echo "folder $(pwd -P)"
  cat scripts/requirements.txt scripts/detectron2-sdist.txt scripts/build_detectron2.py | cksum
}
wanted=$(fingerprint)
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  say "everything is in place (.venv)"
  exit 0
fi
rm -f "$stamp"

venv_log=$(mktemp) pip_process=""
# An interrupted set-up must not leave pip running behind it.
trap 'rm -f "$venv_log"; [ -z "$pip_process" ] || kill "$pip_process" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
make_venv() {
  say "making .venv with $("$python" -V)"
  rm -rf .venv
  "$python" -m venv .venv >"$venv_log" 2>&1 ||
    die "$python cannot make virtual environments ($(tail -n 1 "$venv_log")); on Debian or Ubuntu: apt install python3-venv"
}
# Whether it is whole, and was made where it is: its scripts name that folder, also after this one was moved or copied.
works() {
  [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 &&
    grep -qF "$(pwd -P)/.venv" .venv/bin/activate
}
if [ "$python" != .venv/bin/python ]; then
  same_version() { [ "$("$1" -V 2>&1)" = "$("$2" -V 2>&1)" ]; }
  if ! { works && same_version .venv/bin/python "$python"; }; then make_venv; fi
elif ! works; then
  python=$(find_python); make_venv
fi
python=.venv/bin/python
echo "torch $torch" > "$choice"

# What an interrupted pip leaves behind goes with the next set-up, and /tmp may be small.
export TMPDIR="$PWD/.venv/tmp"
rm -rf "$TMPDIR"; mkdir "$TMPDIR"
pip_log=.venv/pip.log
pip_install() {
  "$python" -m pip --disable-pip-version-check install --quiet --progress-bar off "$@" >"$pip_log" 2>&1 &
  pip_process=$!
  local half_seconds=0
  while kill -0 "$pip_process" 2>/dev/null; do
    sleep 0.5
    half_seconds=$((half_seconds + 1))
    if [ $((half_seconds % 16)) -eq 0 ]; then
      say "  $((half_seconds / 2)) s, .venv holds $(du -sm .venv | cut -f 1) MB"
    fi
  done
  wait "$pip_process" ||
    die "pip failed: $(grep -i error "$pip_log" | tail -n 1) (no network? disk full?); run setup.sh again to go on, details: $pip_log"
  pip_process=""
}

say "installing $pins (some gigabytes: a minute or a few)"
pip_install "setuptools==80.9.0" "wheel==0.48.0" $pins
say "installing the other packages"
pip_install -r scripts/requirements.txt $pins
say "building Detectron2"
"$python" scripts/build_detectron2.py .venv/wheel >.venv/detectron2.log 2>&1 ||
  die "Detectron2 could not be built: $(sed -n 's/^error: //p' .venv/detectron2.log | tail -n 1); details: .venv/detectron2.log"
pip_install --force-reinstall --no-deps .venv/wheel/detectron2-*.whl
pip_install --no-deps --no-build-isolation -e .
"$python" -m pip check >/dev/null || die "the installed packages do not fit together: $("$python" -m pip check | head -n 1)"

say "$("$python" scripts/torch_versions.py report)"
rm -rf "$TMPDIR"
echo "$wanted" > "$stamp"
say "done"
