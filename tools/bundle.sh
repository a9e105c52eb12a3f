#!/usr/bin/env bash
# `make bundle`: dist/llm-fp8/, a folder that runs on another x86-64 Linux machine with a C library as new as this one's
# (Debian 12: glibc 2.36), and dist/llm-fp8-VERSION-linux-x86_64.tar.xz of it, under 50 MB. The C library and the loader
# are the machine's own; everything else that the programs load lies in lib/, found through $ORIGIN/../lib.
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

# add_needed FILE: copies what FILE loads, directly or through others, into lib/.
add_needed() {
  local name path
  while read -r name path; do
    from_the_system "$name" && continue
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

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/licenses"
for program in "${programs[@]}"; do
  [[ -x $build/bin/$program ]] || die "$build/bin/$program is missing: run make first"
  cp "$build/bin/$program" "$out/bin/"
done
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
    from_the_system "$name" && continue
    [[ $(readlink -f "$path") == "$(readlink -f llm-fp8/lib)"/* ]] || die "$file loads $name from outside the bundle: $path"
  done < <(env -u LD_LIBRARY_PATH ldd "$file" | awk '$2 == "=>" {print $1, $3}')
done
echo "$archive: $((bytes / 1000000)) MB, $(du -sm llm-fp8 | cut -f1) MB unpacked; bin/llm-fp8 --version: $version"
