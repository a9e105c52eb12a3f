#!/usr/bin/env bash
# `make bundle`: dist/llm-fp8/, a folder that runs on another x86-64 Linux machine with a C library as new as this one's
# (Debian 12: glibc 2.36), and dist/llm-fp8-VERSION-linux-x86_64.tar.xz of it, under 50 MB. The C library and the loader
# are the machine's own, as are NVIDIA's driver and libraries, without which the CUDA module (carried where it was built) is
# not opened; everything else that the programs load lies in lib/, found through $ORIGIN/../lib.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build-bundle
out=dist/llm-fp8
limit_bytes=$((50 * 1000 * 1000))
programs=(train_fp8 train_multi_gpu llm-fp8)
modules=(libllmfp8_onednn.so libllmfp8_parquet.so)

die() { echo "error: $*" >&2; exit 1; }

# Libraries that belong to the C library of the machine: two versions of them in one process crash.
from_the_system() {
  case $1 in
    linux-vdso.so.* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.*) return 0 ;;
    *) return 1 ;;
  esac
}

# NVIDIA's libraries: twenty times the size of a bundle. The program finds them by itself (docs/cuda.md).
from_nvidia() {
  case $1 in
    libcuda.so.* | libcublas* | libcudnn* | libnvrtc*) return 0 ;;
    *) return 1 ;;
  esac
}

# add_needed FILE: copies what FILE loads, directly or through others, into lib/.
add_needed() {
  local name path
  while read -r name path; do
    if from_the_system "$name" || from_nvidia "$name"; then continue; fi
    [[ $path != not ]] || die "$1 needs $name, which is not on this machine"
    [[ -e $out/lib/$name ]] && continue
    cp -L "$path" "$out/lib/$name"
    add_license "$path" "$name"
  done < <(ldd "$1" | awk '$2 == "=>" {print $1, $3}')
}

# add_license PATH NAME: the terms of the Debian package or of the wheel that the library came from.
add_license() {
  local package site
  if [[ $1 == *site-packages/pyarrow/* ]]; then
    site=${1%%/site-packages/*}/site-packages
    find "$site"/pyarrow-*.dist-info -type f -iname 'LICENSE*' -exec cp {} "$out/licenses/pyarrow-LICENSE.txt" \;
    find "$site"/pyarrow-*.dist-info -type f -iname 'NOTICE*' -exec cp {} "$out/licenses/pyarrow-NOTICE.txt" \;
    [[ -s $out/licenses/pyarrow-LICENSE.txt ]] || die "$site: pyarrow's licence was not found"
    return
  fi
  # dpkg knows a library under the path that the package has, which may lack the /usr of a merged system.
  package=$(dpkg-query -S "$(readlink -f "$1")" "$1" "${1#/usr}" 2>/dev/null | head -n 1 | cut -d: -f1) || true
  [[ -n $package && -s /usr/share/doc/$package/copyright ]] || die "$2 ($1): no licence was found for it"
  cp -L "/usr/share/doc/$package/copyright" "$out/licenses/$package.txt"
}

# What of NVIDIA's is inside the CUDA module: the runtime (static) and the headers of cuDNN's frontend.
add_cuda_licenses() {
  local nvcc toolkit file found
  nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
  toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  for file in "$toolkit"/EULA.txt "$toolkit"/dist-info/nvidia_cuda_runtime-*/licenses/*; do
    if [[ -s $file ]]; then cp -L "$file" "$out/licenses/cuda-runtime.txt"; fi
  done
  [[ -s $out/licenses/cuda-runtime.txt ]] || die "$toolkit: the CUDA runtime's licence was not found"
  found=(.venv/lib/python3*/site-packages/nvidia_cudnn_frontend-*.dist-info/licenses/LICENSE*)
  [[ -s ${found[0]} ]] || die ".venv: the licence of cuDNN's frontend was not found"
  for file in "${found[@]}"; do cp -L "$file" "$out/licenses/cudnn-frontend-$(basename "$file")"; done
}

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/licenses"
for program in "${programs[@]}"; do
  [[ -x $build/bin/$program ]] || die "$build/bin/$program is missing: run make first"
  cp "$build/bin/$program" "$out/bin/"
done
# A module may lie there from an earlier build with CUDA: the program says whether it has a use for it.
with_cuda=true
doctor=$("$build/bin/llm-fp8" doctor 2>&1) || die "$build/bin/llm-fp8 doctor failed: $doctor"
[[ $doctor != *"has no CUDA backend"* ]] || with_cuda=false
if $with_cuda; then
  modules+=(libllmfp8_cuda.so)
  add_cuda_licenses
fi
for module in "${modules[@]}"; do
  [[ -f $build/lib/$module ]] || die "$build/lib/$module is missing: the build found no library for it"
  cp "$build/lib/$module" "$out/lib/"
done
for file in "${programs[@]/#/$build/bin/}" "${modules[@]/#/$build/lib/}"; do add_needed "$file"; done
cp LICENSE README.md "$out/"
# A header-only library is inside the programs, and so is the one that draws a report's curves.
cp -L /usr/share/doc/nlohmann-json3-dev/copyright "$out/licenses/nlohmann-json3-dev.txt"
cp -L /usr/share/doc/libjs-dygraphs/copyright "$out/licenses/libjs-dygraphs.txt"
# dpkg knows common licences by reference only.
for license in $(grep -rhoE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$out/licenses" | sort -u); do
  [[ -f $license ]] && cp -L "$license" "$out/licenses/common-$(basename "$license").txt"
done

for file in "$out"/bin/* "$out"/lib/*; do
  strip --strip-unneeded "$file"
  case $file in
    */bin/*) patchelf --set-rpath '$ORIGIN/../lib' "$file" ;;
    *) patchelf --set-rpath '$ORIGIN' "$file" ;;
  esac
done

version=$("$out/bin/llm-fp8" --version | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1) || die "llm-fp8 --version names no version"
archive=dist/llm-fp8-$version-linux-x86_64.tar.xz
rm -f dist/*.tar.xz
tar -C dist --owner=0 --group=0 --sort=name -c llm-fp8 | xz -6 -T0 >"$archive"
bytes=$(stat -c %s "$archive")
((bytes < limit_bytes)) || die "$archive is $bytes bytes, under $limit_bytes is wanted"

# The proof: unpacked elsewhere, without this machine's environment, it starts, and loads nothing of ours from outside.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
tar -C "$elsewhere" -xf "$archive"
cd "$elsewhere"
for program in "${programs[@]}"; do
  env -i PATH=/usr/bin:/bin "llm-fp8/bin/$program" --version >"$elsewhere/version" 2>&1 ||
    die "bin/$program --version failed after unpacking: $(cat "$elsewhere/version")"
done
for file in llm-fp8/bin/* llm-fp8/lib/*; do
  while read -r name path; do
    if from_the_system "$name" || from_nvidia "$name"; then continue; fi
    [[ $(readlink -f "$path") == "$(readlink -f llm-fp8/lib)"/* ]] || die "$file loads $name from outside the bundle: $path"
  done < <(env -u LD_LIBRARY_PATH ldd "$file" | awk '$2 == "=>" {print $1, $3}')
done
if $with_cuda; then
  # With NVIDIA's libraries of this machine, and as on one that has none.
  doctor=$(env -i PATH=/usr/bin:/bin llm-fp8/bin/llm-fp8 doctor 2>&1) || die "bin/llm-fp8 doctor failed: $doctor"
  [[ $doctor == *"$elsewhere/llm-fp8/lib/libllmfp8_cuda.so"* && $doctor == *libcudnn.so* ]] ||
    die "the CUDA module of the bundle is not taken: $doctor"
  [[ $doctor != *"another build"* && $doctor != *"does not load"* ]] || die "the CUDA module of the bundle does not fit: $doctor"
  doctor=$(env -i PATH=/usr/bin:/bin LLMFP8_CUDA_LIB_DIR="$elsewhere" llm-fp8/bin/llm-fp8 doctor 2>&1) ||
    die "bin/llm-fp8 doctor failed without NVIDIA's libraries: $doctor"
  [[ $doctor == *"was not found in LLMFP8_CUDA_LIB_DIR"* ]] || die "no word about NVIDIA's libraries that are missing: $doctor"
  echo "with the CUDA module: $(du -m llm-fp8/lib/libllmfp8_cuda.so | cut -f1) MB; NVIDIA's libraries are the other machine's"
else
  echo "without the CUDA module: no toolkit was found"
fi
echo "$archive: $((bytes / 1000000)) MB, $(du -sm llm-fp8 | cut -f1) MB unpacked; bin/llm-fp8 --version: $version"
